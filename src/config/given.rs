//! What file, environment and flags give, by path, the later layer over the earlier. It knows which keys exist and
//! nothing of their values; every key that does not exist is a [`Problem`].
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::foreign;
use super::listener;
use super::problem::{Origin, Problem, nearest};
use super::setting::{Read, Setting};
use super::value::{Kind, Value};
use super::yaml::{self, At, Node};
use super::{SECTIONS, settings};

/// One given value: its text, or `None` for `null`.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) text: Option<String>,
    /// YAML understood it as a number or a boolean, so that its spelling is lost.
    plain: bool,
    pub(super) origin: Origin,
}

/// All layers, and what was wrong on the way.
#[derive(Default)]
pub(super) struct Layers {
    values: BTreeMap<String, Given>,
    /// The fields of each listener; as many as the highest layer that gives any.
    pub(super) listeners: Vec<BTreeMap<&'static str, Given>>,
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Where the value at `path` comes from.
    pub(super) fn origin(&self, path: &str) -> Origin {
        self.values.get(path).map_or(Origin::Default, |g| g.origin.clone())
    }

    /// The paths that were given by anybody.
    pub(super) fn given(&self) -> BTreeSet<String> {
        self.values.keys().cloned().collect()
    }

    pub(super) fn problem(
        &mut self,
        at: Origin,
        key: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem { at, key: key.into(), what: what.into(), remedy: remedy.into() });
    }

    /// The file's layer.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) {
        let at = |line: u64| Origin::File { path: path.to_owned(), line };
        let root = match yaml::parse(text) {
            Ok(root) => root,
            Err((line, what)) => return self.problem(at(line), "", what, ""),
        };
        let entries = match root.value {
            Node::Null => return,
            Node::Map(entries) => entries,
            _ => return self.problem(at(root.line), "", "the file is not a mapping", "write `key: value` lines"),
        };
        for (key, value) in entries {
            let origin = at(key.line);
            match (key.value.as_str(), value.value) {
                ("listeners", node) => self.add_listeners(&at, key.line, node),
                (section, node) if SECTIONS.iter().any(|s| s.name == section && !section.is_empty()) => match node {
                    Node::Null => {}
                    Node::Map(entries) => entries.into_iter().for_each(|(key, value)| {
                        self.add(section, &key.value, scalar(value.value), at(key.line));
                    }),
                    _ => self.problem(origin, section, "is a section", "write its keys below it, indented"),
                },
                (name, node) => self.add("", name, scalar(node), origin),
            }
        }
    }

    fn add_listeners(&mut self, at: &impl Fn(u64) -> Origin, line: u64, node: Node) {
        const RIGHT: &str = "write items of `name`, `address` and, if clients connect to another one, `advertised`; `zone` if all its clients are in one";
        let Node::List(items) = node else { return self.problem(at(line), "listeners", "is not a list", RIGHT) };
        for (i, item) in items.into_iter().enumerate() {
            let mut fields = BTreeMap::new();
            let Node::Map(entries) = item.value else {
                self.problem(at(item.line), format!("listeners.{i}"), "is not a mapping", RIGHT);
                continue;
            };
            for (key, value) in entries {
                let path = format!("listeners.{i}.{}", key.value);
                match (listener::FIELDS.iter().find(|f| **f == key.value), scalar(value.value)) {
                    (Some(field), Some((text, plain))) => {
                        fields.insert(*field, Given { text, plain, origin: at(key.line) });
                    }
                    (Some(_), None) => self.problem(at(key.line), path, "is not a single value", RIGHT),
                    (None, _) => self.problem(at(key.line), path, "there is no such key", RIGHT),
                }
            }
            self.listeners.push(fields);
        }
        if self.listeners.is_empty() {
            self.problem(at(line), "listeners", "is empty", "leave it out for the default, or write an item");
        }
    }

    /// The environment's layer: every variable that starts with `STRANDLINE_` counts, except those that Kubernetes makes
    /// for a service of that name.
    pub(super) fn add_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let known: BTreeMap<String, (&str, &str)> = keys().map(|(s, k)| (variable(s, k), (s, k))).collect();
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix("STRANDLINE_") else { continue };
            let text = if value.is_empty() { None } else { Some(value.clone()) };
            let origin = Origin::Variable(name.clone());
            if let Some((section, key)) = known.get(&name) {
                self.add(section, key, Some((text, false)), origin);
            } else if let Some((index, field)) = listener_variable(rest) {
                self.add_listener_variable(index, field, Given { text, plain: false, origin });
            } else if !is_service_link(rest, &value) {
                let remedy = match nearest(&name, known.keys().map(String::as_str)) {
                    Some(near) => format!("did you mean {near}?"),
                    None => "`strandline config default` lists the keys; levels are joined by `__`".to_owned(),
                };
                self.problem(origin, "", "there is no such setting", remedy);
            }
        }
    }

    fn add_listener_variable(&mut self, index: usize, field: &'static str, given: Given) {
        if index > self.listeners.len() {
            let remedy = format!("the next free one is {}", self.listeners.len());
            return self.problem(
                given.origin,
                format!("listeners.{index}"),
                "the listener before it is missing",
                remedy,
            );
        }
        if index == self.listeners.len() {
            self.listeners.push(BTreeMap::new());
        }
        self.listeners[index].insert(field, given);
    }

    /// A flag's layer: `path` is a setting without a section.
    pub(super) fn add_flag(&mut self, flag: &'static str, path: &str, text: &str) {
        let given = Given { text: Some(text.to_owned()), plain: false, origin: Origin::Flag(flag) };
        self.values.insert(path.to_owned(), given);
    }

    /// `--listen`: one listener in place of all others.
    pub(super) fn add_listen_flag(&mut self, address: &str) {
        let given = Given { text: Some(address.to_owned()), plain: false, origin: Origin::Flag("--listen") };
        self.listeners = vec![BTreeMap::from([("address", given)])];
    }

    /// Adds a value if the key exists; `value` is `None` where the file has no single value.
    fn add(&mut self, section: &str, key: &str, value: Option<(Option<String>, bool)>, origin: Origin) {
        let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        if !keys().any(|(s, k)| s == section && k == key) {
            let remedy = remedy_for_unknown(section, key);
            let what = if remedy.1 { "is refused" } else { "there is no such key" };
            return self.problem(origin, path, what, remedy.0);
        }
        match value {
            Some((text, plain)) => {
                self.values.insert(path, Given { text, plain, origin });
            }
            None => self.problem(origin, path, "is not a single value", "write one value, or a list of texts"),
        }
    }
}

impl Read for Layers {
    fn value<T: Value>(&mut self, setting: &'static Setting) -> Option<T> {
        let given = self.values.get(&setting.path())?.clone();
        let is_text = matches!(setting.kind, Kind::Text | Kind::Secret | Kind::Path);
        let read = match &given.text {
            Some(_) if given.plain && is_text => Err("is a number or a boolean to YAML, and a text is due".to_owned()),
            Some(text) => setting.parse::<T>(text),
            None if matches!(setting.kind, Kind::List | Kind::Choices(_)) => setting.parse::<T>(""),
            None => T::null().ok_or_else(|| "has no value".to_owned()),
        };
        let what = match read {
            Ok(value) => return Some(value),
            Err(_) if setting.kind == Kind::Secret => "can't be read".to_owned(),
            Err(what) => what,
        };
        let remedy = match setting.kind {
            _ if given.plain && is_text => "put it in quotes".to_owned(),
            _ => format!("right is {}", setting.allowed()),
        };
        self.problem(given.origin, setting.path(), what, remedy);
        None
    }
}

/// Every (section, key) that may be given, those that are ignored included.
pub(super) fn keys() -> impl Iterator<Item = (&'static str, &'static str)> {
    settings().map(|s| (s.section, s.key)).chain(foreign::ignored().iter().map(|k| ("kafka", *k)))
}

/// The environment variable of a key: `__` between levels, `_` for dots.
pub(super) fn variable(section: &str, key: &str) -> String {
    let level = |name: &str| name.replace('.', "_").to_uppercase();
    if section.is_empty() {
        format!("STRANDLINE_{}", level(key))
    } else {
        format!("STRANDLINE_{}__{}", level(section), level(key))
    }
}

/// `LISTENERS__0__ADDRESS` → (0, `address`).
fn listener_variable(rest: &str) -> Option<(usize, &'static str)> {
    let (index, field) = rest.strip_prefix("LISTENERS__")?.split_once("__")?;
    let field = listener::FIELDS.iter().find(|f| f.to_uppercase() == field)?;
    let plain =
        index.len() <= 2 && index.bytes().all(|b| b.is_ascii_digit()) && (index.len() == 1 || !index.starts_with('0'));
    if plain { Some((index.parse().ok()?, field)) } else { None }
}

/// Kubernetes tells each pod of every service in its namespace. One named `strandline…` gives `STRANDLINE_SERVICE_HOST`,
/// `STRANDLINE_SERVICE_PORT_KAFKA`, `STRANDLINE_PORT=tcp://…`, `STRANDLINE_PORT_9092_TCP_ADDR`; they are nobody's
/// settings. None of ours has a level that is called so.
fn is_service_link(rest: &str, value: &str) -> bool {
    let mut words = rest.split('_').skip_while(|word| *word != "PORT" && *word != "SERVICE");
    match (words.next(), words.next(), words.next()) {
        (Some("SERVICE"), Some("HOST"), None) | (Some("SERVICE"), Some("PORT"), _) => true,
        (Some("PORT"), None, _) => value.contains("://"),
        (Some("PORT"), Some(number), Some("TCP" | "UDP" | "SCTP")) => number.bytes().all(|b| b.is_ascii_digit()),
        _ => false,
    }
}

/// The text of a scalar or of a list of scalars (joined by commas); `None` for anything else.
fn scalar(node: Node) -> Option<(Option<String>, bool)> {
    match node {
        Node::Null => Some((None, false)),
        Node::Text(text) => Some((Some(text), false)),
        Node::Plain(text) => Some((Some(text), true)),
        Node::List(items) => {
            let texts = items.into_iter().map(|At { value, .. }| match value {
                Node::Text(text) | Node::Plain(text) => Some(text),
                _ => None,
            });
            Some((Some(texts.collect::<Option<Vec<_>>>()?.join(",")), false))
        }
        Node::Map(_) => None,
    }
}

/// What would be right in place of a key that does not exist; true if the key is Kafka's and refused on purpose.
fn remedy_for_unknown(section: &str, key: &str) -> (String, bool) {
    if let (true, Some(reason)) = (section == "kafka" || key.contains('.'), foreign::refusal(key)) {
        return (reason.to_owned(), true);
    }
    if let Some((other, _)) = keys().find(|(s, k)| *s != section && *k == key) {
        let place = if other.is_empty() { "at the top of the file".to_owned() } else { format!("under `{other}:`") };
        return (format!("it stands {place}"), false);
    }
    let sections = SECTIONS.iter().map(|s| s.name).chain(["listeners"]).filter(|_| section.is_empty());
    let siblings = keys().filter(|(s, _)| *s == section).map(|(_, k)| k).chain(sections);
    match nearest(key, siblings.filter(|k| !k.is_empty())) {
        Some(near) => (format!("did you mean `{near}`?"), false),
        None => ("`strandline config default` lists the keys".to_owned(), false),
    }
}
