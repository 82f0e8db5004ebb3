//! Replaces an `allOf` of one schema and annotations by a single schema.
//!
//! The framework writes a member with a description as `allOf: [{$ref}, {description}]`. Since OpenAPI 3.1, `$ref` and
//! `description` can be siblings with the same meaning (JSON Schema 2020-12, section 8.2.3.1). Client generators have no name
//! for a schema in an `allOf`, and omit the type that has such a member.

use serde_norway::{Mapping, Value};

/// Keywords that do not depend on their siblings, so they can be merged into any schema.
const ANNOTATIONS: [&str; 13] = [
    "title",
    "description",
    "default",
    "deprecated",
    "example",
    "examples",
    "readOnly",
    "writeOnly",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
];

/// Replaces each `allOf` of one schema and annotations by that schema with the annotations, in the whole document.
pub(super) fn merge_all_of(document: &mut Value) {
    match document {
        Value::Mapping(members) => {
            members.iter_mut().for_each(|(_, member)| merge_all_of(member));
            if let Some(merged) = members.get("allOf").and_then(merged) {
                let is_free = |name: &Value| !members.contains_key(name);
                if merged.keys().all(is_free) {
                    members.shift_remove("allOf");
                    members.extend(merged);
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(merge_all_of),
        _ => {}
    }
}

/// Merges the schemas into one. Returns `None` where more than one is more than annotations, or a keyword occurs twice.
fn merged(schemas: &Value) -> Option<Mapping> {
    let schemas = schemas.as_sequence()?.iter().map(Value::as_mapping).collect::<Option<Vec<_>>>()?;
    let is_annotation = |name: &Value| name.as_str().is_some_and(|name| ANNOTATIONS.contains(&name));
    if schemas.iter().filter(|schema| !schema.keys().all(is_annotation)).count() > 1 {
        return None;
    }
    let mut merged = Mapping::new();
    for (name, value) in schemas.into_iter().flatten() {
        if merged.insert(name.clone(), value.clone()).is_some() {
            return None;
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged_text(document: &str) -> String {
        let mut document = serde_norway::from_str(document).unwrap();
        merge_all_of(&mut document);
        serde_norway::to_string(&document).unwrap()
    }

    #[test]
    fn a_reference_and_its_description_become_siblings() {
        let text = merged_text("a: {allOf: [{$ref: '#/x'}, {description: words}]}");
        assert_eq!(text, "a:\n  $ref: '#/x'\n  description: words\n");
        let text = merged_text("- allOf:\n  - oneOf: [{type: 'null'}, {allOf: [{$ref: '#/x'}]}]\n  - minimum: 1");
        assert_eq!(text, "- oneOf:\n  - type: 'null'\n  - $ref: '#/x'\n  minimum: 1\n");
    }

    #[test]
    fn an_all_of_with_several_constraints_is_kept() {
        for document in [
            "allOf:\n- $ref: '#/x'\n- $ref: '#/y'\n",
            "allOf:\n- $ref: '#/x'\n- properties: {}\n",
            "allOf:\n- description: one\n- description: two\n",
            "description: one\nallOf:\n- $ref: '#/x'\n- description: two\n",
        ] {
            assert_eq!(merged_text(document), document);
        }
    }
}
