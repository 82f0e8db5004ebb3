//! Ridewire: real-time messaging for rides over plain HTTP.

pub mod domain;
pub mod embedded;
