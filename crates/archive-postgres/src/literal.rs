//! SQL literals for the one statement that cannot bind its values: the ledger function shares its round
//! trip with `COMMIT`, and only an unprepared query holds two statements.
//!
//! All of them rely on `standard_conforming_strings`, which every connection sets.

use std::fmt::Write as _;

/// Appends `'text'`. A NUL, which no statement can hold, becomes U+FFFD.
pub(crate) fn text(sql: &mut String, value: &str) {
    sql.push('\'');
    for c in value.chars() {
        match c {
            '\'' => sql.push_str("''"),
            '\0' => sql.push('\u{fffd}'),
            c => sql.push(c),
        }
    }
    sql.push('\'');
}

/// Appends bytes in hexadecimal form.
pub(crate) fn bytes(sql: &mut String, value: &[u8]) {
    sql.push_str("'\\x");
    for byte in value {
        let _ = write!(sql, "{byte:02x}");
    }
    sql.push_str("'::bytea");
}

/// Appends a `bigint` or `NULL`.
pub(crate) fn number(sql: &mut String, value: Option<i64>) {
    match value {
        Some(value) => {
            let _ = write!(sql, "'{value}'::bigint");
        }
        None => sql.push_str("NULL"),
    }
}

/// Appends a `bigint[]`.
pub(crate) fn numbers(sql: &mut String, values: impl Iterator<Item = i64>) {
    sql.push_str("'{");
    for (i, value) in values.enumerate() {
        let _ = write!(sql, "{}{value}", if i == 0 { "" } else { "," });
    }
    sql.push_str("}'");
}

/// Appends a `text[]`.
pub(crate) fn texts<'a>(sql: &mut String, values: impl Iterator<Item = &'a str>) {
    let mut array = String::from("{");
    for (i, value) in values.enumerate() {
        array.push_str(if i == 0 { "\"" } else { ",\"" });
        for c in value.chars() {
            if matches!(c, '"' | '\\') {
                array.push('\\');
            }
            array.push(c);
        }
        array.push('"');
    }
    array.push('}');
    text(sql, &array);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_be_left() {
        let mut sql = String::new();
        text(&mut sql, "a'; DROP TABLE events; --\0\\");
        assert_eq!(sql, "'a''; DROP TABLE events; --\u{fffd}\\'");
        sql.clear();
        texts(&mut sql, ["a\"b", "c\\d", "e'f", "", "{,}", "NULL"].into_iter());
        assert_eq!(sql, r#"'{"a\"b","c\\d","e''f","","{,}","NULL"}'"#);
    }

    #[test]
    fn numbers_and_bytes_have_their_types() {
        let mut sql = String::new();
        numbers(&mut sql, [1, -2].into_iter());
        number(&mut sql, Some(-3));
        number(&mut sql, None);
        bytes(&mut sql, &[0, 255]);
        assert_eq!(sql, r"'{1,-2}''-3'::bigintNULL'\x00ff'::bytea");
    }
}
