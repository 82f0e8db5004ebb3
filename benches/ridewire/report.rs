//! The report of a run: prints its tables and writes docs/reference/performance.md.

use std::path::Path;

use anyhow::Context;

use crate::process;
use crate::table::Table;
use crate::testbed::Testbed;

/// The run replaces the text between these lines in docs/reference/performance.md.
const BEGIN: &str = "<!-- figures: written by the run -->\n";
const END: &str = "<!-- end of figures -->\n";

/// All tables of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    machine: String,
    pub(crate) tables: Vec<Table>,
}

impl Report {
    pub(crate) async fn begin(testbed: &Testbed) -> anyhow::Result<Self> {
        let version = testbed.connect().await?.query_one("show server_version", &[]).await?;
        let version: String = version.try_get(0)?;
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        let machine = format!(
            "{}; PostgreSQL {version}, fsync on; load average {} at the start",
            process::cpu_model(),
            process::load_average()
        );
        Ok(Self { machine, ..Self::default() })
    }

    pub(crate) fn heading(&self) -> String {
        format!("on: {}", self.machine)
    }

    /// Returns the report as Markdown.
    pub(crate) fn text(&self) -> String {
        let heading = format!("{}.\n", self.machine);
        let parts: Vec<String> = std::iter::once(heading).chain(self.tables.iter().map(Table::text)).collect();
        parts.join("\n")
    }

    /// Replaces the figures in docs/reference/performance.md and the charts beside it.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        replace("reference/performance.md", &format!("`cargo bench --bench ridewire` on: {}", self.text()))?;
        let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/performance");
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
    let (before, rest) = text.split_once(BEGIN).context("no begin of the figures")?;
    let (_, after) = rest.split_once(END).context("no end of the figures")?;
    std::fs::write(&path, [before, BEGIN, "\n", figures, "\n", END, after].concat())?;
    Ok(())
}
