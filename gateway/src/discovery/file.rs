//! Endpoints from a file, which is read anew when it has changed and come to rest.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::config;
use crate::files::{self, Watch};

use super::{Look, Source};

/// From one look to the next; a change is taken after two that agree.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct FromFile {
    path: PathBuf,
    base_dir: PathBuf,
    watch: Watch,
    has_looked: bool,
}

impl FromFile {
    pub(super) fn new(path: PathBuf, base_dir: PathBuf) -> Self {
        Self { path, base_dir, watch: Watch::default(), has_looked: false }
    }

    /// Its bytes, if they are others than before. The first time whatever is there is taken.
    async fn read(&mut self) -> Result<Option<Vec<u8>>, String> {
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        let path = self.path.clone();
        let looked = beside(move || files::look(&path, config::MAX_ENDPOINTS_BYTES)).await?;
        if !self.watch.looks(looked, is_first) {
            return Ok(None);
        }
        let path = self.path.clone();
        let read = beside(move || files::read(&path, config::MAX_ENDPOINTS_BYTES)).await?;
        let Some((stamp, bytes)) = read.filter(|(stamp, _)| is_first || *stamp == looked) else {
            return Ok(None);
        };
        self.watch.has_read(stamp);
        Ok(Some(bytes))
    }
}

impl Source for FromFile {
    async fn next(&mut self) -> Look {
        loop {
            if self.has_looked {
                sleep(LOOK_EVERY).await;
            }
            match self.read().await {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    return match config::endpoints(&self.path, bytes, &self.base_dir) {
                        Ok(found) => Look { found: Some(found), failure: None },
                        Err(report) => Look::failed(first_line(&report.to_string())),
                    };
                }
                Err(why) => {
                    self.watch.failed();
                    return Look::failed(why);
                }
            }
        }
    }
}

/// `status` has room for one; `gateway check` shows all of them with their lines.
fn first_line(report: &str) -> String {
    report.lines().next().unwrap_or_default().to_owned()
}

/// Runs what waits for a disk beside the event loop.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(format!("the work broke off: {error}")))
}
