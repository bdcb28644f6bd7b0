//! One self-contained page of a run: figures with their meaning, energy, cycles, roofline, timeline, ops, configuration.
//!
//! Models: nothing. Text goes through `escape`; styles and the sorting script are inside the page, and its own content
//! policy forbids loading anything. Widths are fluid: bars and strips are stretched, labels are text of the page.

mod charts;
mod sections;

use crate::record::RunRecord;
use crate::summary::quantity;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("sort.js");

/// The page, bytes depending on the record alone.
#[must_use]
pub fn page(record: &RunRecord) -> String {
    let title = format!("{} {} on {}", record.model.name, record.model.quant, record.soc.name);
    let sections = [
        sections::figures(record),
        sections::energy(record),
        sections::cycles(record),
        charts::roofline(record),
        charts::timeline(record),
        sections::ops(record),
        sections::everything(record),
        sections::configuration(record),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n<meta \
         name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{}{}{}</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        sections::header(record),
        sections.concat(),
        sections::footer(record),
        title = escape(&title),
    )
}

/// Text as HTML.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A figure with its unit, set with a proper micro sign and a space that does not break.
fn figure(value: f64, unit: &str) -> String {
    let text = quantity(value, unit);
    match text.split_once(' ') {
        Some((number, rest))
            if number.parse::<f64>().is_ok() && !rest.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            let rest = rest.strip_prefix('u').map_or(rest.to_owned(), |r| format!("µ{r}"));
            format!("{number}\u{a0}{}", rest.replace("mm2", "mm²").replace("tokens/s", "tok/s"))
        }
        // Groups of three digits.
        _ => text.replace(' ', "\u{202f}"),
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

fn section(id: &str, title: &str, lead: &str, body: &str) -> String {
    format!("<section id=\"{id}\">\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{body}</section>\n")
}

#[cfg(test)]
mod tests {
    use super::{escape, figure};

    #[test]
    fn text_is_escaped_and_figures_do_not_break() {
        assert_eq!(escape("<a href=\"x\">&'"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
        assert_eq!(figure(12.5e-6, "s"), "12.50\u{a0}µs");
        assert_eq!(figure(1_234_567.0, ""), "1\u{202f}234\u{202f}567");
        assert_eq!(figure(13.4, "tokens/s"), "13.40\u{a0}tok/s");
        assert_eq!(figure(0.25, "share"), "25.00\u{a0}%");
    }
}
