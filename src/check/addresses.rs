//! The addresses to listen on: free, or a server is there already.

use std::io::ErrorKind;

use tokio::task::spawn_blocking;

use super::Report;
use crate::app::{Addresses, AppError};
use crate::config::Settings;
use crate::web;

/// Takes them for a moment.
pub(super) async fn check(settings: &Settings, report: &mut Report) {
    let addresses = &settings.addresses;
    let error = match Addresses::bind(addresses).await {
        Ok(_) => return report.ok("address", format!("{} is free", addresses.listen)),
        Err(error) => error,
    };
    if let AppError::Listen { error, .. } = &error
        && error.kind() == ErrorKind::AddrInUse
    {
        let url = addresses.readiness_url();
        let answer = spawn_blocking(move || web::get_own(&url)).await;
        // Nobody else says both.
        if let Ok(Ok((status, body))) = answer
            && ["\"status\":", "\"writable\":"].iter().all(|part| body.contains(part))
        {
            let state = if status == 200 { "ready" } else { "not ready" };
            return report.ok("address", format!("a server runs at {}, which is {state}", addresses.listen));
        }
    }
    report.error("address", error);
}
