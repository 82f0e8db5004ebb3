//! Bar charts as SVG, for light and dark pages.

use std::fmt::Write as _;

/// A bar chart of figures with the same unit.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    bars: Vec<Bar>,
}

/// A bar of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    label: String,
    value: f64,
    is_ours: bool,
}

impl Bar {
    pub(crate) fn ours(label: &str, value: f64) -> Self {
        Self { label: label.to_owned(), value, is_ours: true }
    }

    /// A bar of a peer. It is omitted if the value is not a number.
    pub(crate) fn peer(label: &str, value: f64) -> Self {
        Self { label: label.to_owned(), value, is_ours: false }
    }
}

const WIDTH: f64 = 720.0;
/// The left edge of the bars, and the length of the longest one.
const LEFT: f64 = 250.0;
const LONGEST: f64 = 360.0;
const TOP: f64 = 44.0;
const STEP: f64 = 30.0;

const STYLE: &str = "
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .ours { fill: #0a6e4f } .peer { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .ours { fill: #3fb68b } .peer { fill: #6e7681 }
  }";

impl Plot {
    /// `name` is the name of its file without the extension.
    pub(crate) fn new(name: &'static str, title: &'static str, unit: &'static str) -> Self {
        Self { name, title, unit, bars: Vec::new() }
    }

    pub(crate) fn with(mut self, bars: impl IntoIterator<Item = Bar>) -> Self {
        self.bars.extend(bars.into_iter().filter(|bar| bar.value.is_finite()));
        self
    }

    pub(crate) fn file(&self) -> String {
        format!("{}.svg", self.name)
    }

    /// Returns the Markdown image, relative to docs/reference/performance.md.
    pub(crate) fn link(&self) -> String {
        format!("![{}](performance/{})", self.title, self.file())
    }

    pub(crate) fn svg(&self) -> String {
        let height = TOP + STEP * self.bars.len() as f64 + 10.0;
        let most = self.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
             aria-label=\"{title}\">\n<style>{STYLE}\n</style>\n<text class=\"title\" x=\"10\" y=\"26\">{title}</text>\n",
            title = escape(self.title),
        );
        for (row, bar) in self.bars.iter().enumerate() {
            let (top, length) = (TOP + STEP * row as f64, LONGEST * bar.value / most);
            let (middle, class) = (top + 16.0, if bar.is_ours { "ours" } else { "peer" });
            // Writing to a string cannot fail.
            let _ = writeln!(
                svg,
                "<text x=\"{:.0}\" y=\"{middle:.0}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{LEFT:.0}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"22\" rx=\"3\"/>\
                 <text x=\"{:.1}\" y=\"{middle:.0}\">{} {}</text>",
                LEFT - 10.0,
                escape(&bar.label),
                LEFT + length + 8.0,
                figure(bar.value),
                self.unit,
            );
        }
        svg + "</svg>\n"
    }
}

/// Formats a value with three significant digits, or all digits before the decimal point.
fn figure(value: f64) -> String {
    match value {
        large if large >= 100.0 => format!("{large:.0}"),
        middle if middle >= 10.0 => format!("{middle:.1}"),
        small => format!("{small:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}
