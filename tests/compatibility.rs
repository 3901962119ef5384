//! `docs/compatibility.md` lists the APIs that the broker really offers. `UPDATE_DOCS=1` rewrites the table.
use std::fs;
use std::path::Path;

use strandline::api::OFFERED;

const BEGIN: &str = "<!-- offered: begin -->\n";
const END: &str = "<!-- offered: end -->";

fn table() -> String {
    let mut rows: Vec<_> = OFFERED.iter().collect();
    rows.sort_by_key(|o| o.key as i16);
    let mut table = "| key | API | versions |\n| --- | --- | --- |\n".to_owned();
    for offered in rows {
        let shown = if offered.shown_min < offered.min {
            format!(" (shown from {}, as Kafka does)", offered.shown_min)
        } else {
            String::new()
        };
        let (key, name) = (offered.key as i16, offered.key);
        table.push_str(&format!("| {key} | {name:?} | {}–{}{shown} |\n", offered.min, offered.max));
    }
    table
}

#[test]
fn the_offered_apis_are_those_of_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(written, table(), "run `UPDATE_DOCS=1 cargo test --release --test compatibility`");
}
