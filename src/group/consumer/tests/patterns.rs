//! Regular expressions: what RE2 takes, and what a group makes of them.
use super::pattern::compile;
use super::*;

fn matches(pattern: &str, name: &str) -> bool {
    compile(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(name)
}

#[test]
fn the_whole_name_matches() {
    let matching = [
        ("t", "t"),
        ("t.*", "topic"),
        ("^t.*$", "topic"),
        ("a|b", "b"),
        ("", ""),
        (".*", "anything"),
        ("(?i)TOPIC", "topic"),
        ("(?P<x>a)(?<y>b)(?:c)(?i:D)", "abcd"),
        (r"\Qa.b\E-\d+", "a.b-12"),
        (r"\Qa.b", "a.b"),
        (r"\x41\x{42}\103\0", "ABC\0"),
        (r"[[:alpha:]]+[[:^digit:]]", "abc-"),
        (r"[a&&b]+", "a&b"),
        (r"[[a]+", "[a"),
        (r"[]a]+", "]a"),
        (r"[^]a]", "b"),
        (r"[a-c\-\d~~]+", "b-7~"),
        (r"[-a]+", "-a"),
        (r"[a-]+", "-a"),
        (r"a{2}b{1,}c{1,2}", "aabbc"),
        (r"a{,2}", "a{,2}"),
        (r"a{x}", "a{x}"),
        (r"a{", "a{"),
        (r"a\.b\-c\_\<", "a.b-c_<"),
        (r"a*?b+?c??", "ab"),
        (r"\pL\p{Greek}\p{^L}\PL", "aα1-"),
        (r"\bt\b", "t"),
        ("a  #b", "a  #b"),
        ("(?)a", "a"),
        ("[a-b-c]+", "a-c"),
        ("[--a]+", "-_a"),
        ("^*a$*", "a"),
        ("|a", "a"),
        ("()a", "a"),
        ("(|a)*", "aa"),
    ];
    for (pattern, name) in matching {
        assert!(matches(pattern, name), "{pattern} matches {name}");
        assert!(!matches(pattern, &format!("{name}\n/")) || pattern == ".*", "{pattern} is whole");
    }
    assert!(!matches("t", "tt"));
    assert!(!matches("a|b", "ab"));
}

#[test]
fn what_re2_does_not_take_is_refused() {
    let wrong = [
        ("(", "missing closing )"),
        (")", "unexpected )"),
        ("a)(b", "unexpected )"),
        ("[", "missing closing ]"),
        ("[]", "missing closing ]"),
        ("*", "missing argument to repetition operator"),
        ("a**", "invalid nested repetition operator"),
        ("a|*", "missing argument to repetition operator"),
        ("(?=a)", "invalid or unsupported Perl syntax"),
        ("(?<!a)b", "invalid or unsupported Perl syntax"),
        ("(?x)a", "invalid or unsupported Perl syntax"),
        (r"(a)\1", r"invalid escape sequence"),
        (r"\u1234", r"invalid escape sequence"),
        (r"\", "trailing backslash at end of expression"),
        ("a{1001}", "invalid repeat count"),
        ("a{2}{3}", "invalid nested repetition operator"),
        ("x*??", "invalid nested repetition operator"),
        (r"\E", "invalid escape sequence"),
        ("(?i", "invalid or unsupported Perl syntax"),
        ("(?-)", "invalid or unsupported Perl syntax"),
        ("[^]", "missing closing ]"),
        ("[[:nonsense:]]", "invalid character class range"),
        ("a{3,2}", "invalid repeat count"),
    ];
    for (pattern, reason) in wrong {
        assert_eq!(compile(pattern).map(drop), Err(reason.to_owned()), "{pattern}");
    }
    for pattern in ["[z-a]", r"\p{Nonsense}", r"\x{110000}", "((a{100}){100}){100}", "(?P<y>b)(?P<y>c)"] {
        assert!(compile(pattern).is_err(), "{pattern}");
    }
    assert_eq!(compile(&"a".repeat(4097)).map(drop), Err("it is longer than 4096 bytes".into()));
    assert!(compile(&"(".repeat(4096)).is_err());
    assert!(compile(&format!("{}{}", "(".repeat(2000), ")".repeat(2000))).is_err());
}

proptest::proptest! {
    #[test]
    fn nothing_that_is_sent_panics(pattern in r"[\\\[\](){}|^$.*+?a-c0-3:&~QEpPx<>,!=-]{0,40}") {
        let _ = compile(&pattern);
    }
}

#[test]
fn a_group_gets_the_topics_that_match_and_those_that_come() {
    let mut bench = Bench::new();
    bench.topic("log-a", 1);
    bench.topic("other", 1);
    let reply = bench.ok(join("a", &[]).no_topics().regex("log-.*"));
    assert_eq!((reply.member_epoch, reply.assignment.unwrap().len()), (2, 1));
    bench.topic("log-b", 1);
    let reply = bench.ok(beat("a", 2));
    assert_eq!((reply.member_epoch, reply.assignment.unwrap().len()), (3, 2));
    assert!(bench.group().is_subscribed("log-b") && !bench.group().is_subscribed("other"));
    // Names and an expression are taken together; an empty expression takes it back.
    let reply = bench.ok(beat("a", 3).topics(&["other"]));
    assert_eq!((reply.member_epoch, reply.assignment.unwrap().len()), (4, 3));
    bench.crash();
    bench.taken_changes();
    assert_eq!(bench.ok(beat("a", 4)).assignment, None);
    assert_eq!(bench.taken_changes(), 0);
    let reply = bench.ok(beat("a", 4).regex("").owned(&[]));
    assert_eq!((reply.member_epoch, reply.assignment.unwrap().len()), (5, 1));
    assert!(!bench.group().is_subscribed("log-b"));
}

#[test]
fn a_wrong_expression_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    let text = "SubscribedTopicRegex `a(` is not a valid regular expression: missing closing ).";
    let error = bench.error(join("a", &[]).regex("a("));
    assert_eq!(error, (KafkaError::InvalidRegularExpression, text.into()));
    assert_eq!(bench.taken_changes(), 0);
    assert!(bench.state.group("g").is_none());
}

#[test]
fn matching_is_spaced_when_it_costs_much() {
    let mut bench = Bench::new();
    for i in 0..100 {
        bench.topic(&format!("t{i}"), 1);
    }
    for member in 0..60 {
        let regex = format!("t[0-{}]+{}", member % 10, "x?".repeat(member));
        bench.ok(join(&format!("m{member}"), &[]).regex(&regex));
    }
    // 60 expressions with 101 topics are 6 ms of work.
    bench.pass_ms(1_000);
    bench.topic("t999", 1);
    let epoch = |bench: &mut Bench| {
        let epoch = bench.group().members["m9"].epoch;
        bench.ok(beat("m9", epoch));
        bench.group().epoch()
    };
    let first = epoch(&mut bench);
    bench.topic("t998", 1);
    assert_eq!(epoch(&mut bench), first);
    bench.pass_ms(54);
    assert_eq!(epoch(&mut bench), first + 1);
}
