//! Ridewire: real-time messaging for rides over plain HTTP.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
mod demo;
pub mod domain;
pub mod embedded;
pub mod http;
pub mod keys;
pub mod realtime;
pub mod store;
mod telemetry;
pub mod writer;
