//! YAML text → a tree with line numbers. The only file that knows the YAML package, and the only shape asked of it: the
//! table of settings says what the keys and types are, so that messages are ours.
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;
use std::fmt;

/// A value of the file.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    /// A text, in quotes or not.
    Text(String),
    /// A number or a boolean, as YAML wrote it down again; its original spelling is lost.
    Plain(String),
    List(Vec<At<Node>>),
    Map(Vec<(At<String>, At<Node>)>),
}

/// A value and the line that it stands on, from 1.
#[derive(Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: u64,
}

impl<T> From<Spanned<T>> for At<T> {
    fn from(spanned: Spanned<T>) -> Self {
        Self { line: spanned.referenced.line(), value: spanned.value }
    }
}

/// Reads a file's text.
///
/// # Errors
/// The line and what is wrong there: bad syntax, a key twice in a mapping, aliases or nesting beyond measure.
pub(super) fn parse(text: &str) -> Result<At<Node>, (u64, String)> {
    let options = serde_yaml::options! { with_snippet: false };
    serde_yaml::from_str_with_options::<Spanned<Node>>(text, options).map(At::from).map_err(|e| {
        let what = e.without_snippet().to_string();
        (e.location().map_or(0, |l| l.line()), what.lines().next().unwrap_or_default().to_owned())
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }
    fn visit_i128<E: Error>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }
    fn visit_u128<E: Error>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(format!("{value:?}")))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Node>>()? {
            items.push(item.into());
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Node>>()? {
            entries.push((key.into(), value.into()));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_lines() {
        let Node::Map(root) = parse("# a\nkafka:\n  num.partitions: 4\n  x: '4'\n").unwrap().value else { panic!() };
        assert_eq!((root[0].0.value.as_str(), root[0].0.line), ("kafka", 2));
        let Node::Map(kafka) = &root[0].1.value else { panic!() };
        assert_eq!((kafka[0].0.value.as_str(), kafka[0].0.line, kafka[0].1.line), ("num.partitions", 3, 3));
        assert!(matches!(&kafka[0].1.value, Node::Plain(n) if n == "4"));
        assert!(matches!(&kafka[1].1.value, Node::Text(n) if n == "4"));
    }

    #[test]
    fn bad_syntax_and_double_keys_have_a_line() {
        let (line, what) = parse("a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!(line, 3, "{what}");
        assert!(what.contains("duplicate"), "{what}");
        let (line, what) = parse("a: [1\nb: 2\n").unwrap_err();
        assert!(line >= 1, "{what}");
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                    d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                    g: [*e,*e,*e,*e,*e,*e,*e,*e]\nh: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
        assert!(parse(bomb).is_err());
    }
}
