//! YAML as JSON text, in the order in which it was written.

use saphyr::{LoadableYamlNode, Scalar, Yaml};

/// The one document in a text, compact.
pub fn to_json(text: &str) -> String {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|e| panic!("not YAML: {e}"));
    let [document] = documents.as_slice() else { panic!("{} documents", documents.len()) };
    let mut json = String::new();
    write(document, &mut json);
    json.push('\n');
    json
}

fn write(node: &Yaml<'_>, json: &mut String) {
    match node {
        Yaml::Value(Scalar::Null) => json.push_str("null"),
        Yaml::Value(Scalar::Boolean(value)) => json.push_str(if *value { "true" } else { "false" }),
        Yaml::Value(Scalar::Integer(value)) => json.push_str(&value.to_string()),
        Yaml::Value(Scalar::String(text)) => write_string(text, json),
        Yaml::Sequence(items) => {
            json.push('[');
            for (n, item) in items.iter().enumerate() {
                json.push_str(if n > 0 { "," } else { "" });
                write(item, json);
            }
            json.push(']');
        }
        Yaml::Mapping(members) => {
            json.push('{');
            for (n, (name, value)) in members.iter().enumerate() {
                json.push_str(if n > 0 { "," } else { "" });
                let Yaml::Value(Scalar::String(name)) = name else { panic!("a key that is no string: {name:?}") };
                write_string(name, json);
                json.push(':');
                write(value, json);
            }
            json.push('}');
        }
        other => panic!("nothing that is in JSON: {other:?}"),
    }
}

fn write_string(text: &str, json: &mut String) {
    json.push_str(&serde_json::to_string(text).unwrap());
}
