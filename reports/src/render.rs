//! Fills the templates. Names and messages come from strangers: HTML is escaped by the template engine, Markdown by
//! the filters `md` and `code`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{Environment, HtmlEscape, Value};
use serde::Serialize;

use crate::Error;
use crate::record::Number;

pub(crate) fn render(template: &str, context: impl Serialize) -> Result<String, Error> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?);
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.add_template("certificate.md", include_str!("../templates/certificate.md"))?;
    environment.add_template("report.html", include_str!("../templates/report.html"))?;
    environment.add_template("benches.html", include_str!("../templates/benches.html"))?;
    environment.add_template("claims.html", include_str!("../templates/claims.html"))?;
    environment.add_template("gate.html", include_str!("../templates/gate.html"))?;
    environment.add_template("head.html", include_str!("../templates/head.html"))?;
    environment.add_template("identities.html", include_str!("../templates/identities.html"))?;
    environment.add_template("report.css", include_str!("../templates/report.css"))?;
    environment.add_template("report.js", include_str!("../templates/report.js"))?;
    environment.add_filter("number", number);
    environment.add_filter("count", count);
    environment.add_filter("breakable", breakable);
    environment.add_filter("md", markdown);
    environment.add_filter("code", markdown_code);
    Ok(environment.get_template(template)?.render(Serde(context))?)
}

/// A measured number with three digits; a dash if there is none.
fn number(value: Value) -> String {
    match value.kind() {
        ValueKind::None => "–".to_owned(),
        ValueKind::Number => f64::try_from(value).map_or_else(|_| "–".to_owned(), |number| Number(number).to_string()),
        // Infinities and NaN, as records spell them.
        _ => value.to_string(),
    }
}

/// A count with its digits in groups of three.
fn count(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join("\u{202f}")
}

/// HTML in which a long name may be broken after a dot or an underscore.
fn breakable(name: &str) -> Value {
    let escaped = HtmlEscape(name).to_string();
    Value::from_safe_string(escaped.replace('.', ".<wbr>").replace('_', "_<wbr>"))
}

/// Text that means itself in Markdown, also in a table.
pub(crate) fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '&' | '~' | '!' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text as a code span in Markdown, also in a table: on one line, and fenced by more backticks than it holds in a row.
pub(crate) fn markdown_code(text: &str) -> String {
    let text = text.replace(char::is_control, " ").replace('|', "\\|");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let space = if longest > 0 { " " } else { "" };
    format!("{fence}{space}{text}{space}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_counts_in_groups() {
        assert_eq!(count(999), "999");
        assert_eq!(count(1234567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn what_strangers_write_means_itself_in_markdown() {
        assert_eq!(markdown("<b>|a_b\n"), "\\<b\\>\\|a\\_b ");
        assert_eq!(markdown_code("a``b|c"), "``` a``b\\|c ```");
        assert_eq!(markdown_code("plain"), "`plain`");
    }

    #[test]
    fn what_strangers_write_means_itself_between_breaks() {
        assert_eq!(breakable("a.<b>_c").to_string(), "a.<wbr>&lt;b&gt;_<wbr>c");
    }

    #[test]
    fn missing_and_infinite_numbers_are_shown() {
        let shown = |n: Option<Number>| number(Value::from(Serde(n)));
        assert_eq!(shown(None), "–");
        assert_eq!(shown(Some(Number(f64::INFINITY))), "inf");
        assert_eq!(shown(Some(Number(0.25))), "0.25");
    }
}
