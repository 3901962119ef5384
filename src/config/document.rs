//! The table of settings as texts: the documented file of `config default`, and `docs/configuration.md`.
use std::fmt::Write;

use super::setting::{Effect, Setting};
use super::topic::TABLE;
use super::value::{Kind, size_text};
use super::{Config, HostPort, SECTIONS, foreign};

/// Width of a comment line in the documented file.
const WIDTH: usize = 100;

/// A file with every setting, its documentation and its default. Reading it gives the defaults.
#[must_use]
pub fn default_file() -> String {
    let mut out = String::new();
    let about = "Strandline's settings, with their defaults: keep what you change. Every key can also be set by the \
                 environment variable that stands beside it. Sizes may be written as 8 MiB. `strandline config check FILE` \
                 says what is wrong with a file.";
    comment(&mut out, "", about);
    let shown = Config::default().shown();
    let mut values = shown.iter();
    for section in SECTIONS {
        let indent = if section.name.is_empty() { "" } else { "  " };
        if !section.name.is_empty() {
            out.push('\n');
            comment(&mut out, "", section.doc);
            line(&mut out, &format!("{}:", section.name));
        }
        for (setting, value) in values.by_ref().take(section.settings.len()) {
            default_entry(&mut out, indent, setting, value.as_deref());
        }
        if section.name.is_empty() {
            default_listeners(&mut out);
        }
    }
    out
}

fn default_entry(out: &mut String, indent: &str, setting: &Setting, value: Option<&str>) {
    if indent.is_empty() {
        out.push('\n');
    }
    comment(out, indent, setting.doc);
    if let Some(note) = note(setting.effect) {
        comment(out, indent, &note);
    }
    let unit = if setting.unit().is_empty() { String::new() } else { format!(" ({})", setting.unit()) };
    comment(out, indent, &format!("{}{unit}. {}", capital(&setting.allowed()), setting.variable()));
    match value {
        Some(value) => line(out, &format!("{indent}{}: {}", setting.key, yaml_text(setting, value))),
        None => line(out, &format!("{indent}# {}: null  # {}", setting.key, setting.unset)),
    }
}

fn default_listeners(out: &mut String) {
    out.push('\n');
    let about = "Where clients connect. `advertised` is what they are told to connect to, where that is not `address`; \
                 it must be given for 0.0.0.0 and [::]. Addresses that other machines can reach need `insecure: true`. \
                 `zone` is where its clients are, if all are in one. STRANDLINE_LISTENERS__0__NAME, \
                 STRANDLINE_LISTENERS__0__ADDRESS, STRANDLINE_LISTENERS__0__ADVERTISED, STRANDLINE_LISTENERS__0__ZONE";
    comment(out, "", about);
    line(out, "listeners:");
    for listener in Config::default().listeners {
        line(out, &format!("  - name: {}", listener.name));
        line(out, &format!("    address: {}", listener.address));
        let example = HostPort { host: "broker-1.example.com".to_owned(), port: listener.address.port };
        line(out, &format!("    # advertised: {example}"));
    }
}

/// `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(MARKDOWN_HEAD);
    let shown = Config::default().shown();
    let mut values = shown.iter();
    for section in SECTIONS {
        let name = if section.name.is_empty() { "Top of the file".to_owned() } else { format!("`{}:`", section.name) };
        let _ = write!(out, "\n## {name}\n\n{}\n\n", section.doc.trim());
        out.push_str("| key | default | right is | what it does |\n| --- | --- | --- | --- |\n");
        for (setting, value) in values.by_ref().take(section.settings.len()) {
            markdown_row(&mut out, setting, value.as_deref());
        }
        if section.name.is_empty() {
            out.push_str(MARKDOWN_LISTENERS);
        }
        if section.name == "kafka" {
            markdown_foreign(&mut out);
        }
    }
    markdown_topics(&mut out);
    out
}

fn markdown_topics(out: &mut String) {
    out.push_str(MARKDOWN_TOPICS);
    for setting in TABLE {
        let default = (setting.default)(&Config::default());
        let default = if default.is_empty() { "empty".to_owned() } else { format!("`{default}`") };
        let source = setting.synonyms.iter().map(|s| format!("`{s}`")).collect::<Vec<_>>().join(", ");
        let note = note(setting.effect).map_or(String::new(), |n| format!(" *{n}*"));
        line(out, &format!("| `{}` | {default} | {source} | {}{note} |", setting.name, setting.doc));
    }
}

fn markdown_row(out: &mut String, setting: &Setting, value: Option<&str>) {
    let default = match value {
        None => setting.unset.to_owned(),
        Some("") => "empty".to_owned(),
        Some(value) => format!("`{}`", plain_text(setting, value)),
    };
    let unit = if setting.unit().is_empty() { String::new() } else { format!(" ({})", setting.unit()) };
    let watch = if setting.metric.is_empty() { String::new() } else { format!(" Watch `{}`.", setting.metric) };
    let note = note(setting.effect).map_or(String::new(), |n| format!(" *{n}*"));
    let doc = setting.doc.trim();
    line(out, &format!("| `{}` | {default} | {}{unit} | {doc}{note}{watch} |", setting.key, setting.allowed()));
}

fn markdown_foreign(out: &mut String) {
    out.push_str("\nThese settings of Kafka are taken and ignored, since what they tune is not here: ");
    let names: Vec<String> = foreign::ignored().iter().map(|name| format!("`{name}`")).collect();
    let _ = writeln!(out, "{}.", names.join(", "));
    out.push_str("\nThese are refused, since ignoring them would break what they are there for:\n\n| setting | instead |\n| --- | --- |\n");
    for (name, remedy) in foreign::refused() {
        let name = if name.ends_with('.') { format!("`{name}*`") } else { format!("`{name}`") };
        line(out, &format!("| {name} | {remedy} |"));
    }
}

fn note(effect: Effect) -> Option<String> {
    match effect {
        Effect::Works => None,
        Effect::Later(what) => Some(format!("Not in effect yet: {what}.")),
        Effect::None(why) => Some(format!("Without effect: {why}.")),
    }
}

/// A value as the documentation shows it.
fn plain_text(setting: &Setting, value: &str) -> String {
    match value.parse::<i64>() {
        Ok(bytes) if setting.takes_size_suffix() => size_text(bytes),
        _ => value.to_owned(),
    }
}

/// A value as the file has it: texts in quotes where YAML could take them for something else.
fn yaml_text(setting: &Setting, value: &str) -> String {
    let text = plain_text(setting, value);
    let free = matches!(setting.kind, Kind::Text | Kind::Secret | Kind::Path | Kind::List | Kind::Choices(_));
    let simple = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.' || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/-,".contains(c));
    if free && !simple { format!("'{}'", text.replace('\'', "''")) } else { text }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// `text` as comment lines of at most [`WIDTH`] characters.
fn comment(out: &mut String, indent: &str, text: &str) {
    let mut row = String::new();
    for word in text.split_whitespace() {
        if !row.is_empty() && indent.len() + row.len() + word.len() + 3 > WIDTH {
            line(out, &format!("{indent}# {row}"));
            row.clear();
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.push_str(word);
    }
    line(out, &format!("{indent}# {row}"));
}

const MARKDOWN_HEAD: &str = "\
# Configuration

This page is generated from the table of settings in `src/config/`; `UPDATE_DOCS=1 cargo test --lib config::` writes it.

A broker reads one YAML file (`strandline serve --config FILE`, or the variable `STRANDLINE_CONFIG`), then the environment, then its flags; the later counts.
It needs none of them. `strandline config default` prints a file with everything in it, `strandline config check FILE`
says what is wrong with one: unknown keys, values out of range and contradictions are refused with file, line, key and
what would be right.

- Our own keys are snake_case and end in their unit. Sizes may be written as `8 MiB`.
- Kafka's broker settings stand under `kafka:` by their Kafka names, with Kafka's defaults.
- Every key is also an environment variable: `STRANDLINE_`, then the path in upper case with `__` between levels and `_`
  for dots, so `kafka.num.partitions` is `STRANDLINE_KAFKA__NUM_PARTITIONS`. An empty value is `null`. Variables that
  start with `STRANDLINE_` and are no setting are refused, except those that Kubernetes makes for a service of that name
  (`STRANDLINE_SERVICE_HOST`, `STRANDLINE_PORT_9092_TCP`, …).
- `--data DIR` sets `data_dir`; `--listen HOST:PORT` puts one listener in place of `listeners`.
- The defaults fit a container of 512 MiB.
- Topic settings have Kafka's names and are set with Kafka's tools; their defaults are the settings under `kafka:`.
";

const MARKDOWN_TOPICS: &str = "
## Topic settings

Set with Kafka's tools, when a topic is created or later; refused in Kafka's words where Kafka refuses them. A topic
without its own value has the broker's, by the setting named in the third column.

| setting | default | broker setting | what it does |
| --- | --- | --- | --- |
";

const MARKDOWN_LISTENERS: &str = "
`listeners` is a list. Each item has

| key | default | right is | what it does |
| --- | --- | --- | --- |
| `name` | `plain` | letters, digits, `-`, `_` | The listener's name in logs. |
| `zone` | none | a text | The zone that clients are in who come by this listener. |
| `address` | `127.0.0.1:9092` | host:port | What to listen on. Port 0 takes a free one. Other machines can reach it: needs `insecure: true`. |
| `advertised` | as `address` | host:port | What clients are told to connect to. Must be given where `address` is `0.0.0.0` or `[::]`, since a guessed host name leaves clients hanging. |

Item 0 is also `STRANDLINE_LISTENERS__0__NAME`, `STRANDLINE_LISTENERS__0__ADDRESS`, `STRANDLINE_LISTENERS__0__ADVERTISED` and
`STRANDLINE_LISTENERS__0__ZONE`; the numbers that follow the file's items add more.
";
