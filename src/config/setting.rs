//! What a setting is: one row of the table that drives parsing, checks, environment names, `config default` and
//! `docs/configuration.md`. `section!` declares a section's struct and its rows at once, so that neither can be without
//! the other.
use std::path::PathBuf;

use super::value::{Kind, Value};

/// Whether a setting does something in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Works,
    /// Checked and shown, but what it rules is not built yet; the text names it.
    Later(&'static str),
    /// Checked and shown because tools set or read it, and it means nothing without disks; the text says why.
    None(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The section's name, empty for keys at the top of the file.
    pub section: &'static str,
    /// The key within the section; under `kafka:` it is Kafka's name.
    pub key: &'static str,
    /// What it does, and what to think of when choosing it.
    pub doc: &'static str,
    pub kind: Kind,
    /// The least and greatest value of a number.
    pub min: Option<i64>,
    pub max: Option<i64>,
    /// Where another value than the range's is allowed too (Kafka's `-1`).
    pub or: Option<i64>,
    /// The metric that tells that the value is wrong.
    pub metric: &'static str,
    /// What an unset optional value means, for people.
    pub unset: &'static str,
    /// Kafka lets it be changed while the broker runs (for DescribeConfigs; here nothing can yet).
    pub effect: Effect,
}

impl Setting {
    /// A row without limits; the macro fills in the rest.
    pub(super) const fn new<T: Value>(section: &'static str, key: &'static str, doc: &'static str) -> Self {
        let (min, max, or, metric, unset, effect) = (None, None, None, "", "", Effect::Works);
        Self { section, key, doc, kind: T::KIND, min, max, or, metric, unset, effect }
    }

    /// The key's path as it is written in messages: `produce.object_bytes_max`, `kafka."num.partitions"`.
    #[must_use]
    pub fn path(&self) -> String {
        match self.section {
            "" => self.key.to_owned(),
            section => format!("{section}.{}", self.key),
        }
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn variable(&self) -> String {
        let level = |name: &str| name.replace('.', "_").to_uppercase();
        match self.section {
            "" => format!("STRANDLINE_{}", level(self.key)),
            section => format!("STRANDLINE_{}__{}", level(section), level(self.key)),
        }
    }

    /// The unit, as the key's name says it; empty for plain numbers and texts.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if !matches!(self.kind, Kind::Int | Kind::Long | Kind::Short | Kind::Count | Kind::Double) {
            return "";
        }
        let has = |word: &str| self.key.split(['_', '.']).any(|w| w == word);
        const UNITS: [(&str, &str); 6] = [
            ("bytes", "bytes"),
            ("ms", "ms"),
            ("seconds", "s"),
            ("minutes", "minutes"),
            ("hours", "hours"),
            ("days", "days"),
        ];
        UNITS.iter().find(|(word, _)| has(word)).map_or("", |(_, unit)| unit)
    }

    /// Our own byte counts may be written with KiB, MiB, GiB; Kafka's are plain, since Kafka's tools know no suffix.
    pub(super) fn takes_size_suffix(&self) -> bool {
        self.section != "kafka" && self.unit() == "bytes"
    }

    /// What is allowed, for people: `64 KiB to 256 MiB`, `one of text, json`.
    #[must_use]
    pub fn allowed(&self) -> String {
        let number = |n: i64| if self.takes_size_suffix() { super::value::size_text(n) } else { n.to_string() };
        let range = match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{} to {}", number(min), number(max)),
            (Some(min), None) => format!("{} or more", number(min)),
            (None, Some(max)) => format!("{} or less", number(max)),
            (None, None) => self.kind.allowed(),
        };
        let or = self.or.map_or(String::new(), |n| format!(", or {n}"));
        let unset = if self.unset.is_empty() { "" } else { ", or null" };
        format!("{range}{or}{unset}")
    }

    /// Reads `text` as this setting's type and checks its range.
    pub(super) fn parse<T: Value>(&self, text: &str) -> Result<T, String> {
        let text = text.trim();
        let plain = if self.takes_size_suffix() { super::value::without_size_suffix(text)? } else { text.to_owned() };
        let value = T::parse(&plain).map_err(|e| format!("{text:?} is not {e}"))?;
        let fits = |n: f64| {
            #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52, or the ends of a type")]
            let (min, max, or) = (self.min.map(|n| n as f64), self.max.map(|n| n as f64), self.or.map(|n| n as f64));
            or == Some(n) || (min.is_none_or(|m| n >= m) && max.is_none_or(|m| n <= m))
        };
        if value.number().is_none_or(fits) { Ok(value) } else { Err(format!("{text} is out of range")) }
    }
}

/// A current value of one setting, for printing.
pub(super) type Shown = (&'static Setting, Option<String>);

/// The section's files that the macro's `read` asks.
pub(super) trait Read {
    /// The value that was given for `setting`, or `None`; a bad one is reported by the implementation.
    fn value<T: Value>(&mut self, setting: &'static Setting) -> Option<T>;
}

/// Declares a section: a struct with typed fields, its defaults, and the rows of the table. A field's doc comment is
/// the setting's documentation.
macro_rules! section {
    ($(#[doc = $section_doc:literal])* $name:ident, $section:literal {
        $($(#[doc = $doc:literal])* $field:ident $(($key:literal))?: $ty:ty = $default:expr
            $(, { $($opt:ident: $value:expr),* $(,)? })?;)*
    }) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $ty,)*
        }

        impl $name {
            /// The section's rows, in the order of the file.
            pub const SETTINGS: &'static [$crate::config::setting::Setting] = &[
                $({
                    #[allow(unused_mut)]
                    let mut setting = $crate::config::setting::Setting::new::<$ty>(
                        $section,
                        section!(@key $field $($key)?),
                        concat!($($doc),*),
                    );
                    $($(section!(@opt setting, $opt, $value);)*)?
                    setting
                },)*
            ];
            /// What the section is about.
            pub(super) const DOC: &'static str = concat!($($section_doc),*);

            pub(super) fn read(from: &mut impl $crate::config::setting::Read) -> Self {
                let mut rows = Self::SETTINGS.iter();
                Self {
                    $($field: rows.next().and_then(|row| from.value::<$ty>(row)).unwrap_or_else(|| $default),)*
                }
            }

            pub(super) fn shown(&self) -> Vec<$crate::config::setting::Shown> {
                let mut rows = Self::SETTINGS.iter();
                let mut shown = Vec::with_capacity(rows.len());
                $(
                    if let Some(row) = rows.next() {
                        shown.push((row, $crate::config::value::Value::text(&self.$field)));
                    }
                )*
                shown
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@opt $setting:ident, min, $value:expr) => { $setting.min = Some($value) };
    (@opt $setting:ident, max, $value:expr) => { $setting.max = Some($value) };
    (@opt $setting:ident, or, $value:expr) => { $setting.or = Some($value) };
    (@opt $setting:ident, metric, $value:expr) => { $setting.metric = $value };
    (@opt $setting:ident, unset, $value:expr) => { $setting.unset = $value };
    (@opt $setting:ident, later, $value:expr) => { $setting.effect = $crate::config::setting::Effect::Later($value) };
    (@opt $setting:ident, none, $value:expr) => { $setting.effect = $crate::config::setting::Effect::None($value) };
}
pub(super) use section;

/// A path as a default.
pub(super) fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}
