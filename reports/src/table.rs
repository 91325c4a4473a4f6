//! Tables of words and numbers, told as plain text, as Markdown or, by a template, as HTML.

use serde::Serialize;

use crate::record::Number;
use crate::render;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name, from which anchors are made.
    pub name: String,
    /// What it shows, in a few words.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each with an entry for each column.
    pub rows: Vec<Vec<Entry>>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// What stands in it.
    pub name: String,
    /// Whether these are numbers.
    pub numeric: bool,
}

/// What stands in one place of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// As people read it; empty if there is nothing to say.
    pub text: String,
    /// By which rows are sorted; the text if there is none.
    pub sort: Option<Number>,
    /// What to make of it.
    pub mark: Mark,
}

/// What to make of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Nothing out of the ordinary.
    #[default]
    Plain,
    /// It is bad.
    Bad,
    /// It is not sure.
    Unsure,
}

impl Entry {
    /// Words.
    pub fn words(text: impl Into<String>) -> Entry {
        Entry { text: text.into(), ..Entry::default() }
    }

    /// A number, as people read it and as it is.
    pub fn number(text: impl Into<String>, value: Number) -> Entry {
        Entry { text: text.into(), sort: Some(value), ..Entry::default() }
    }

    /// The same with a mark.
    #[must_use]
    pub fn marked(self, mark: Mark) -> Entry {
        Entry { mark, ..self }
    }
}

impl Table {
    /// An empty table. Names of columns that hold numbers begin with `#`.
    pub fn new(name: &str, title: &str, note: &str, columns: &[&str]) -> Table {
        let column = |name: &&str| match name.strip_prefix('#') {
            Some(name) => Column { name: name.to_owned(), numeric: true },
            None => Column { name: (*name).to_owned(), numeric: false },
        };
        Table {
            name: name.to_owned(),
            title: title.to_owned(),
            note: note.to_owned(),
            columns: columns.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// The table without the columns in which nothing stands.
    #[must_use]
    pub fn without_empty_columns(mut self) -> Table {
        let used: Vec<_> =
            (0..self.columns.len()).map(|column| self.rows.iter().any(|row| !row[column].text.is_empty())).collect();
        let mut keep = used.iter();
        self.columns.retain(|_| keep.next().is_none_or(|used| *used));
        for row in &mut self.rows {
            let mut keep = used.iter();
            row.retain(|_| keep.next().is_none_or(|used| *used));
        }
        self
    }

    /// The table as plain text, for a terminal.
    pub fn text(&self) -> String {
        let calm = |text: &str| text.replace(char::is_control, " ");
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(|e| calm(&e.text)).collect()).collect();
        let names: Vec<String> = self.columns.iter().map(|column| calm(&column.name)).collect();
        let width = |column: usize| {
            let texts = rows.iter().map(|row| &row[column]).chain([&names[column]]);
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..names.len()).map(width).collect();
        let line = |texts: &[String]| {
            let padded = texts.iter().zip(&widths).zip(&self.columns).map(|((text, width), column)| {
                if column.numeric { format!("{text:>width$}") } else { format!("{text:<width$}") }
            });
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        let rule = "-".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1));
        let body: String = rows.iter().map(|row| line(row)).collect();
        let note = if self.note.is_empty() { String::new() } else { wrapped(&calm(&self.note), 100) };
        format!("{}\n{note}{}{rule}\n{body}", calm(&self.title), line(&names))
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let line = |entries: Vec<String>| format!("| {} |\n", entries.join(" | "));
        let head = line(self.columns.iter().map(|column| render::markdown(&column.name)).collect());
        let rule = line(self.columns.iter().map(|c| if c.numeric { "--:" } else { "---" }.to_owned()).collect());
        let entry = |entry: &Entry| {
            let text = render::markdown(&entry.text);
            if entry.mark == Mark::Plain || text.is_empty() { text } else { format!("**{text}**") }
        };
        let body: String = self.rows.iter().map(|row| line(row.iter().map(entry).collect())).collect();
        let note = if self.note.is_empty() { String::new() } else { format!("{}\n\n", render::markdown(&self.note)) };
        format!("## {}\n\n{note}{head}{rule}{body}", render::markdown(&self.title))
    }
}

/// Text in lines of at most so many characters, where its words allow it.
fn wrapped(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => *line += &format!(" {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new("t", "Title", "A note.", &["name", "#value", "never"]);
        for (name, value) in [("long name", 1.5), ("a|b\n", 22.0)] {
            let value = Entry::number(Number(value).to_string(), Number(value));
            table.rows.push(vec![Entry::words(name), value, Entry::default()]);
        }
        table.rows[1][1].mark = Mark::Bad;
        table.without_empty_columns()
    }

    #[test]
    fn columns_line_up_in_plain_text() {
        let expected = "Title\nA note.\nname       value\n----------------\nlong name    1.5\na|b           22\n";
        assert_eq!(table().text(), expected);
    }

    #[test]
    fn notes_are_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), "one two\nthree\n");
        assert_eq!(wrapped("incomprehensible word", 7), "incomprehensible\nword\n");
    }

    #[test]
    fn marks_stand_out_in_markdown() {
        let expected =
            "## Title\n\nA note.\n\n| name | value |\n| --- | --: |\n| long name | 1.5 |\n| a\\|b  | **22** |\n";
        assert_eq!(table().markdown(), expected);
    }
}
