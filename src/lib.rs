//! Ridewire: real-time messaging for rides over plain HTTP.

pub mod auth;
pub mod domain;
