//! stub
use std::path::{Path, PathBuf};
/// x
#[derive(Debug)]
pub struct EmbeddedPostgres;
/// x
#[derive(Debug, Default)]
pub struct Options;
/// x
#[derive(Debug)]
pub enum StopMode {
    /// x
    Fast,
}
/// x
#[derive(Debug, thiserror::Error)]
#[error("none")]
pub struct EmbeddedError;
impl EmbeddedPostgres {
    /// x
    pub async fn start(_d: &Path, _o: Options) -> Result<Self, EmbeddedError> {
        Err(EmbeddedError)
    }
    /// x
    pub fn url(&self) -> String {
        String::new()
    }
    /// x
    pub async fn stop(self, _m: StopMode) -> Result<(), EmbeddedError> {
        Ok(())
    }
    /// x
    pub async fn exited(&mut self) {}
}
/// x
pub fn default_data_dir() -> PathBuf {
    ".ridewire".into()
}
