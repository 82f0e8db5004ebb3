//! The tables of a run, for people and for docs/performance.md.

use std::path::Path;

use anyhow::Context;

use crate::platform::Platform;
use crate::process;
use crate::table::Table;

/// What stands between these in docs/performance.md is written by the run, the rest by people.
const BEGIN: &str = "<!-- figures: written by the run -->\n";
const END: &str = "<!-- end of figures -->\n";

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    machine: String,
    pub(crate) tables: Vec<Table>,
}

impl Report {
    pub(crate) async fn begin(platform: &Platform) -> anyhow::Result<Self> {
        let version = platform.connect().await?.query_one("show server_version", &[]).await?;
        let version: String = version.try_get(0)?;
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        let machine = format!(
            "{}; PostgreSQL {version}, fsync on; load average {} at the start",
            process::hardware(),
            process::load()
        );
        Ok(Self { machine, ..Self::default() })
    }

    pub(crate) fn heading(&self) -> String {
        format!("on: {}", self.machine)
    }

    /// Markdown.
    pub(crate) fn text(&self) -> String {
        let heading = format!("{}.\n", self.machine);
        let parts: Vec<String> = std::iter::once(heading).chain(self.tables.iter().map(Table::text)).collect();
        parts.join("\n")
    }

    /// Replaces the figures in docs/performance.md, and the pictures beside it.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        replace("performance.md", &format!("`cargo bench --bench ridewire` on: {}", self.text()))?;
        let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance");
        std::fs::create_dir_all(&pictures)?;
        for plot in self.tables.iter().filter_map(|table| table.plot.as_ref()) {
            std::fs::write(pictures.join(plot.file()), plot.svg())?;
        }
        Ok(())
    }
}

/// Replaces the figures of a page in docs/.
pub(crate) fn replace(page: &str, figures: &str) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(&path).with_context(|| page.to_owned())?;
    let (before, rest) = text.split_once(BEGIN).context("no place for the figures")?;
    let (_, after) = rest.split_once(END).context("no end of the figures")?;
    std::fs::write(&path, [before, BEGIN, "\n", figures, "\n", END, after].concat())?;
    Ok(())
}
