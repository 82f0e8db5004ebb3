//! Checks the addresses to listen on: they are free, or this server already runs there.

use std::io::ErrorKind;

use super::Report;
use crate::app::{Addresses, AppError};
use crate::config::Settings;
use crate::web;

/// Binds the addresses, and releases them again.
pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let addresses = &settings.addresses;
    let Err(error) = Addresses::bind(addresses).await else {
        return report.ok("address", format!("{} is free", addresses.listen));
    };
    if let AppError::Listen { error, .. } = &error
        && error.kind() == ErrorKind::AddrInUse
    {
        let url = addresses.readiness_url();
        let response = web::get_self(&url).await;
        // Only Ridewire's readiness probe has both members.
        if let Ok((status, body)) = response
            && ["\"status\":", "\"writable\":"].iter().all(|part| body.contains(part))
        {
            let state = if status == 200 { "ready" } else { "not ready" };
            return report.ok("address", format!("a server that is {state} runs at {}", addresses.listen));
        }
    }
    report.error("address", error);
}
