//! Documents and their schemas.

/// A document's schema is the one that is kept; by it `documents` are such documents, and `other` is none.
pub fn check(name: &str, schema: schemars::Schema, documents: &[serde_json::Value], other: serde_json::Value) {
    let path = format!("{}/schema/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
    expect_test::expect_file![path].assert_eq(&(serde_json::to_string_pretty(&schema).unwrap() + "\n"));
    let schema = jsonschema::validator_for(schema.as_value()).unwrap();
    for document in documents {
        assert!(schema.is_valid(document), "{name}: {:?}", schema.validate(document).err());
    }
    assert!(!schema.is_valid(&other), "{name}: {other} is valid");
}
