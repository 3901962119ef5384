use super::*;

#[test]
fn decoded_structs_take_no_more_than_the_table_says() {
    for (believed, actual) in table::sizes() {
        assert!(believed >= actual, "{believed} {actual}");
    }
}
