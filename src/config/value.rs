//! The types that a setting can have, and how each is written.
use std::fmt;
use std::path::PathBuf;

/// A setting's type, as people and Kafka's DescribeConfigs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Short,
    Int,
    Long,
    /// A count or size of ours, 0 or more.
    Count,
    Double,
    Text,
    List,
    Path,
    Secret,
    Choice(&'static [&'static str]),
    /// Items of which each is one of these.
    Choices(&'static [&'static str]),
}

impl Kind {
    /// What is allowed, for people.
    #[must_use]
    pub fn allowed(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Short | Self::Int | Self::Long | Self::Count => "a whole number".to_owned(),
            Self::Double => "a number".to_owned(),
            Self::Text | Self::Secret => "a text".to_owned(),
            Self::List => "texts, separated by commas".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Choice(names) => format!("one of {}", names.join(", ")),
            Self::Choices(names) => format!("any of {}, separated by commas", names.join(", ")),
        }
    }
}

/// A type that a setting can have. `parse` gives what the text is not: "a whole number from 0 to 255".
pub trait Value: Sized {
    const KIND: Kind;
    /// # Errors
    /// What `text` should have been.
    fn parse(text: &str) -> Result<Self, String>;
    /// As it is written in a file; `None` if it is unset.
    fn text(&self) -> Option<String>;
    /// The value that `null` stands for, where the setting may be unset.
    fn null() -> Option<Self> {
        None
    }
    /// The number that a range applies to.
    fn number(&self) -> Option<f64> {
        None
    }
}

macro_rules! whole_numbers {
    ($($ty:ty: $kind:ident),*) => {$(
        impl Value for $ty {
            const KIND: Kind = Kind::$kind;
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX))
            }
            fn text(&self) -> Option<String> {
                Some(self.to_string())
            }
            fn number(&self) -> Option<f64> {
                #[allow(clippy::cast_precision_loss, reason = "limits are far below 2^52, or the ends of a type")]
                #[allow(clippy::cast_lossless, reason = "one line for all number types")]
                Some(*self as f64)
            }
        }
    )*};
}
whole_numbers!(i16: Short, i32: Int, i64: Long, u16: Count, u32: Count, u64: Count, usize: Count);

impl Value for bool {
    const KIND: Kind = Kind::Bool;
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("true or false".to_owned()),
        }
    }
    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for f64 {
    const KIND: Kind = Kind::Double;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().ok().filter(|n: &Self| n.is_finite()).ok_or_else(|| "a number".to_owned())
    }
    fn text(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
    fn number(&self) -> Option<f64> {
        Some(*self)
    }
}

impl Value for String {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn text(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for PathBuf {
    const KIND: Kind = Kind::Path;
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path".to_owned()) } else { Ok(Self::from(text)) }
    }
    fn text(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn text(&self) -> Option<String> {
        self.as_ref().and_then(T::text)
    }
    fn null() -> Option<Self> {
        Some(None)
    }
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Value for Secret {
    const KIND: Kind = Kind::Secret;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
    fn text(&self) -> Option<String> {
        Some("(hidden)".to_owned())
    }
}

/// The address of a server, which is printed without the password that may be in it.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(String);

impl ServerUrl {
    /// With its password, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// With `(hidden)` in the place of a password.
    #[must_use]
    pub fn shown(&self) -> String {
        let (scheme, rest) = self.0.split_at(self.0.find("://").map_or(0, |at| at + 3));
        // The password may hold an `@` or `?` that should have been written as %40 or %3F; none of it is shown either.
        let rest = match rest.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                format!("{}:(hidden)@{host}", user.split(':').next().unwrap_or_default())
            }
            _ => rest.to_owned(),
        };
        let hide =
            |pair: &str| if pair.starts_with("password=") { "password=(hidden)".to_owned() } else { pair.to_owned() };
        match rest.split_once('?') {
            Some((rest, query)) => {
                format!("{scheme}{rest}?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
            }
            None => format!("{scheme}{rest}"),
        }
    }
}

impl From<&str> for ServerUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Value for ServerUrl {
    const KIND: Kind = Kind::Text;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
    fn text(&self) -> Option<String> {
        Some(self.shown())
    }
}

/// Declares an enum whose variants are written as texts.
macro_rules! choice {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $variant_doc:literal])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $variant_doc])* $variant),* }

        impl $name {
            /// As it is written.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl $crate::config::value::Value for $name {
            const KIND: $crate::config::value::Kind = $crate::config::value::Kind::Choice(&[$($text),*]);
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err(Self::KIND.allowed()),
                }
            }
            fn text(&self) -> Option<String> {
                Some(self.name().to_owned())
            }
        }
    };
}
pub(super) use choice;

choice!(
    /// Kafka's `log.cleanup.policy` values.
    Cleanup { Compact = "compact", Delete = "delete" }
);

/// `log.cleanup.policy`: none, one or both, in the order given.
impl Value for Vec<Cleanup> {
    const KIND: Kind = Kind::Choices(&["compact", "delete"]);
    fn parse(text: &str) -> Result<Self, String> {
        items(text).map(|item| Cleanup::parse(item).map_err(|_| Self::KIND.allowed())).collect()
    }
    fn text(&self) -> Option<String> {
        Some(self.iter().map(|c| c.name()).collect::<Vec<_>>().join(","))
    }
}

impl Value for Vec<String> {
    const KIND: Kind = Kind::List;
    fn parse(text: &str) -> Result<Self, String> {
        Ok(items(text).map(str::to_owned).collect())
    }
    fn text(&self) -> Option<String> {
        Some(self.join(","))
    }
}

/// The items of a list as Kafka writes it: separated by commas, spaces around them dropped; none in an empty text.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    let text = text.trim();
    text.split(',').map(str::trim).filter(move |_| !text.is_empty())
}

const SIZES: [(&str, i64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// `8388608` as `8 MiB`; numbers that are no multiple of a unit stay as they are.
pub(super) fn size_text(bytes: i64) -> String {
    for (suffix, unit) in SIZES {
        if bytes >= unit && bytes % unit == 0 {
            return format!("{} {suffix}", bytes / unit);
        }
    }
    bytes.to_string()
}

/// `8 MiB` as `8388608`; other texts are given back.
pub(super) fn without_size_suffix(text: &str) -> Result<String, String> {
    for (suffix, unit) in SIZES {
        if let Some(number) = text.strip_suffix(suffix) {
            let bytes = number.trim().parse::<i64>().ok().and_then(|n| n.checked_mul(unit));
            return bytes.map(|n| n.to_string()).ok_or_else(|| format!("{text:?} is not a size"));
        }
    }
    Ok(text.to_owned())
}
