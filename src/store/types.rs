//! The types of a statement's parameters, parsed from its text.
//!
//! Behind a transaction-pooling proxy, each statement may run on another connection, on which nothing was prepared. So
//! the statement is sent with its text and the types of its parameters. Every `$1` is cast at its first occurrence.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

/// Returns the types of `$1`, `$2`, …; `None` if a parameter has no cast.
pub fn parameter_types(statement: &str) -> Option<Vec<Type>> {
    let code = statement.lines().filter(|line| !line.trim_start().starts_with("--"));
    let mut types = BTreeMap::new();
    for part in code.flat_map(|line| line.split('$').skip(1)) {
        let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = part.split_at_checked(digits)?;
        let number: usize = number.parse().ok()?;
        let parsed = types.entry(number).or_insert(None);
        if let Some(cast) = rest.strip_prefix("::").filter(|_| parsed.is_none()) {
            let ends = |c: char| !c.is_ascii_alphanumeric();
            let name = cast.split(ends).next()?;
            *parsed = Some(named(name, cast.get(name.len()..)?.starts_with("[]"))?);
        }
    }
    let is_whole = types.keys().copied().eq(1..=types.len());
    types.into_values().collect::<Option<Vec<_>>>().filter(|_| is_whole)
}

fn named(name: &str, is_array: bool) -> Option<Type> {
    Some(match (name, is_array) {
        ("text", false) => Type::TEXT,
        ("text", true) => Type::TEXT_ARRAY,
        ("bigint", false) => Type::INT8,
        ("bigint", true) => Type::INT8_ARRAY,
        ("float8", false) => Type::FLOAT8,
        ("float8", true) => Type::FLOAT8_ARRAY,
        ("boolean", false) => Type::BOOL,
        ("boolean", true) => Type::BOOL_ARRAY,
        ("bytea", false) => Type::BYTEA,
        ("bytea", true) => Type::BYTEA_ARRAY,
        ("uuid", false) => Type::UUID,
        ("uuid", true) => Type::UUID_ARRAY,
        ("timestamptz", false) => Type::TIMESTAMPTZ,
        ("timestamptz", true) => Type::TIMESTAMPTZ_ARRAY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_cast_at_its_first_occurrence() {
        let statement = "-- of $9\nselect $2::bigint[], $1::text::xid8\nwhere a = $2 and b = $1";
        assert_eq!(parameter_types(statement), Some(vec![Type::TEXT, Type::INT8_ARRAY]));
        assert_eq!(parameter_types("select 1"), Some(Vec::new()));
        for wrong in ["select $1", "select $2::text", "select $1::money", "select $::text"] {
            assert_eq!(parameter_types(wrong), None, "{wrong}");
        }
    }
}
