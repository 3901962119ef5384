//! Regular expressions that clients subscribe with. Kafka takes RE2's syntax, and a topic matches if its whole name does.
//! The library that matches here (also without backtracking) takes a little more and a little less, so an expression is
//! read as RE2 reads it and written down for the library. Topic names are ASCII, so it does not matter that `\d` and its
//! like mean more letters to the library than to RE2.
use regex::{Regex, RegexBuilder};
use std::iter::Peekable;
use std::str::Chars;

/// Bytes of an expression.
pub(super) const PATTERN_BYTES_MAX: usize = 4096;

/// Bytes of a compiled expression; RE2 has a limit of the same kind.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// RE2's limit of `{n,m}`.
const REPEAT_MAX: u32 = 1000;

/// What may stand in `[[:alpha:]]`.
const SETS: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// An expression that matches whole names.
///
/// # Errors
/// What is wrong with it, in words.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let mut reader = Reader { rest: pattern.chars().peekable(), out: String::new(), depth: 0, last: Last::Nothing };
    reader.read()?;
    RegexBuilder::new(&format!(r"\A(?:{})\z", reader.out))
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
            // The library draws a picture of several lines; its last one says it.
            error => error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })
}

/// What was read last, for what may follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Nothing that could be repeated.
    Nothing,
    Something,
    /// `*` and its like, that only `?` may follow.
    Repeat,
    LazyRepeat,
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    out: String,
    depth: usize,
    last: Last,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '(' => self.open()?,
                ')' if self.depth == 0 => return Err("unexpected )".to_owned()),
                ')' => {
                    self.depth -= 1;
                    self.put(")", Last::Something);
                }
                '*' | '+' | '?' => self.repeat(&c.to_string())?,
                '{' => self.brace()?,
                '|' => self.put("|", Last::Nothing),
                '^' | '$' | '.' => self.put(&c.to_string(), Last::Something),
                c => self.literal(c),
            }
        }
        if self.depth > 0 { Err("missing closing )".to_owned()) } else { Ok(()) }
    }

    fn put(&mut self, text: &str, last: Last) {
        self.out.push_str(text);
        self.last = last;
    }

    fn literal(&mut self, c: char) {
        let text = regex::escape(&c.to_string());
        self.put(&text, Last::Something);
    }

    fn repeat(&mut self, operator: &str) -> Result<(), String> {
        let last = match (self.last, operator) {
            (Last::Something, _) => Last::Repeat,
            (Last::Repeat, "?") => Last::LazyRepeat,
            (Last::Nothing, _) => return Err("missing argument to repetition operator".to_owned()),
            _ => return Err("invalid nested repetition operator".to_owned()),
        };
        self.put(operator, last);
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}`; anything else is a brace.
    fn brace(&mut self) -> Result<(), String> {
        let inside: String = self.rest.clone().take_while(|c| *c != '}').take(12).collect();
        let closed = self.rest.clone().nth(inside.chars().count()) == Some('}');
        let (least, most) = inside.split_once(',').map_or((&*inside, None), |(least, most)| (least, Some(most)));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !closed || !digits(least) || most.is_some_and(|most| !most.is_empty() && !digits(most)) {
            self.literal('{');
            return Ok(());
        }
        self.rest.by_ref().take(inside.chars().count() + 1).for_each(drop);
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n <= REPEAT_MAX);
        let in_order = match (number(least), most.filter(|m| !m.is_empty())) {
            (Some(least), Some(most)) => number(most).is_some_and(|most| least <= most),
            (least, None) => least.is_some(),
            (None, _) => false,
        };
        if !in_order {
            return Err("invalid repeat count".to_owned());
        }
        self.repeat(&format!("{{{inside}}}"))
    }

    /// After `(`: a group, a named one, or flags.
    fn open(&mut self) -> Result<(), String> {
        self.put("(", Last::Nothing);
        self.depth += 1;
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        let head: String = self.rest.clone().take_while(|c| !matches!(c, '>' | ')' | ':')).take(64).collect();
        let end = self.rest.clone().nth(head.chars().count());
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let name = head.strip_prefix("P<").or_else(|| head.strip_prefix('<'));
        let flags = head.chars().all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-'));
        match (name, end) {
            (Some(name), Some('>')) if is_name(name) => {}
            (None, Some(':')) if flags => {}
            (None, Some(')')) if flags && !head.ends_with('-') => self.depth -= 1,
            _ => return Err("invalid or unsupported Perl syntax".to_owned()),
        }
        if head.is_empty() && end == Some(')') {
            // No flags at all, which the library does not take.
            self.out.pop();
            self.rest.next();
            return Ok(());
        }
        self.out.push('?');
        let length = head.chars().count() + 1;
        let read: String = self.rest.by_ref().take(length).collect();
        self.out.push_str(&read);
        Ok(())
    }

    /// After `\`.
    fn escape(&mut self, in_class: bool) -> Result<(), String> {
        let Some(c) = self.rest.next() else { return Err("trailing backslash at end of expression".to_owned()) };
        let wrong = || Err("invalid escape sequence".to_owned());
        match c {
            'Q' if !in_class => {
                let mut quoted = String::new();
                for c in self.rest.by_ref() {
                    quoted.push(c);
                    if quoted.ends_with("\\E") {
                        quoted.truncate(quoted.len() - 2);
                        break;
                    }
                }
                quoted.chars().for_each(|c| self.literal(c));
            }
            'b' if in_class => return wrong(),
            'A' | 'z' | 'b' | 'B' if !in_class => {
                // In a group of its own, since the library reads `\b{start}` as one word.
                self.put(&format!("(?:\\{c})"), Last::Something);
            }
            'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'a' | 'f' | 'n' | 'r' | 't' | 'v' => {
                self.put(&format!("\\{c}"), Last::Something);
            }
            'p' | 'P' => self.unicode_class(c)?,
            'x' => self.hexadecimal()?,
            '0' => self.octal(0),
            '1'..='7' if self.rest.peek().is_some_and(|next| ('0'..='7').contains(next)) => {
                self.octal(c.to_digit(8).unwrap_or_default());
            }
            c if c.is_ascii_punctuation() => {
                let text = if in_class { format!("\\{c}") } else { regex::escape(&c.to_string()) };
                self.put(&text, Last::Something);
            }
            _ => return wrong(),
        }
        Ok(())
    }

    /// Up to two digits more.
    fn octal(&mut self, first: u32) {
        let mut value = first;
        for _ in 0..2 {
            let Some(digit) = self.rest.next_if(|c| ('0'..='7').contains(c)) else { break };
            value = value * 8 + digit.to_digit(8).unwrap_or_default();
        }
        self.put(&format!("\\x{{{value:x}}}"), Last::Something);
    }

    /// `\x7F` or `\x{10FFFF}`; what the library finds wrong in it is wrong.
    fn hexadecimal(&mut self) -> Result<(), String> {
        let braced = self.rest.next_if_eq(&'{').is_some();
        let length = if braced { 8 } else { 2 };
        let mut digits = String::new();
        while digits.len() < length
            && let Some(digit) = self.rest.next_if(char::is_ascii_hexdigit)
        {
            digits.push(digit);
        }
        let closed = !braced && digits.len() == 2 || braced && self.rest.next_if_eq(&'}').is_some();
        if digits.is_empty() || !closed {
            return Err("invalid escape sequence".to_owned());
        }
        self.put(&format!("\\x{{{digits}}}"), Last::Something);
        Ok(())
    }

    /// `\pL`, `\p{Greek}`, `\p{^Greek}`, and the same with `\P`.
    fn unicode_class(&mut self, letter: char) -> Result<(), String> {
        let wrong = || "invalid character class range".to_owned();
        let name = match self.rest.next() {
            Some('{') => {
                let name: String = self.rest.by_ref().take_while(|c| *c != '}').take(64).collect();
                name
            }
            Some(c) => c.to_string(),
            None => return Err(wrong()),
        };
        let (negated, name) = name.strip_prefix('^').map_or((false, &*name), |rest| (true, rest));
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(wrong());
        }
        let letter = if negated == (letter == 'p') { 'P' } else { 'p' };
        self.put(&format!("\\{letter}{{{name}}}"), Last::Something);
        Ok(())
    }

    /// After `[`. What the library would read as sets in sets or operations on sets is plain for RE2.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let Some(c) = self.rest.next() else { return Err("missing closing ]".to_owned()) };
            match c {
                ']' if !first => break,
                '\\' => self.escape(true)?,
                '[' if self.rest.peek() == Some(&':') => self.named_set()?,
                '[' => self.out.push_str("\\["),
                '-' if self.rest.peek().is_some_and(|next| *next != '-') && !first => self.out.push('-'),
                c => {
                    let text = if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() };
                    self.out.push_str(&text);
                }
            }
            first = false;
        }
        self.put("]", Last::Something);
        Ok(())
    }

    /// The rest of `[:alpha:]` or `[:^alpha:]`; without its end it is no name of a set.
    fn named_set(&mut self) -> Result<(), String> {
        let inside: String = self.rest.clone().take_while(|c| *c != ']').take(16).collect();
        let Some(name) = inside.strip_prefix(':').and_then(|name| name.strip_suffix(':')) else {
            self.out.push_str("\\[");
            return Ok(());
        };
        if !SETS.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err("invalid character class range".to_owned());
        }
        self.rest.by_ref().take(inside.chars().count() + 1).for_each(drop);
        self.out.push_str(&format!("[{inside}]"));
        Ok(())
    }
}
