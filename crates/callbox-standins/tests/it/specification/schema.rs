//! Reads the specification and holds values against it: by JSON Schema, and more strictly, by
//! name: a field that the specification does not have is a difference.

use std::collections::BTreeSet;
use std::path::Path;

use jsonschema::Draft;
use serde_json::{Map, Value, json};

use super::is_known;

pub struct Specification(Value);

/// One operation.
pub struct Operation {
    /// `get /apps/{app_name}`
    name: String,
    value: Value,
}

impl Specification {
    pub fn load() -> Specification {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fly-openapi.json");
        let text = std::fs::read_to_string(path).unwrap();
        let mut all: Value = serde_json::from_str(&text).unwrap();
        // The specification describes how Go holds a duration, and not how it is written: a
        // string (fly.md section 2.2). The one difference that is not of one operation.
        all["components"]["schemas"]["fly.Duration"] = json!({"type": "string"});
        Specification(all)
    }

    pub fn operations(&self) -> impl Iterator<Item = String> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
    }

    /// The operation of a path, and the template that the path fills.
    pub fn operation(&self, path: &str, method: &str) -> Option<(String, Operation)> {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let template: Vec<&str> = template.split('/').collect();
            let same = |(wanted, is): (&&str, &&str)| wanted.starts_with('{') || wanted == is;
            template.len() == parts.len() && template.iter().zip(&parts).all(same)
        };
        let paths = self.0["paths"].as_object().unwrap().iter();
        let (template, methods) = paths.into_iter().find(|(template, _)| fits(template))?;
        let value = methods.get(method)?.clone();
        let name = format!("{method} {template}");
        Some((template.clone(), Operation { name, value }))
    }

    pub fn check_query(
        &self,
        operation: &Operation,
        query: &[String],
        wrong: &mut BTreeSet<String>,
    ) {
        let parameters = operation.value["parameters"].as_array().cloned().unwrap_or_default();
        for name in query {
            let specified =
                parameters.iter().any(|one| one["in"] == "query" && one["name"] == **name);
            let name = if name.starts_with("metadata.") { "metadata.*" } else { name };
            let what = format!("query {name}");
            if !specified && !is_known(&operation.name, &what) {
                wrong.insert(format!("{}: {what}", operation.name));
            }
        }
    }

    pub fn check_request(&self, operation: &Operation, body: &Value, wrong: &mut BTreeSet<String>) {
        if body.is_null() {
            return;
        }
        let schema = &operation.value["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            wrong.insert(format!("{}: a body where none is specified", operation.name));
            return;
        }
        self.check(&format!("{} request", operation.name), schema, body, wrong);
    }

    pub fn check_answer(
        &self,
        operation: &Operation,
        status: u16,
        body: &Value,
        wrong: &mut BTreeSet<String>,
    ) {
        let name = &operation.name;
        if status >= 400 {
            // Which statuses there are is known better than specified (fly.md section 9).
            let schema = json!({"$ref": "#/components/schemas/ErrorResponse"});
            return self.check(&format!("{name} {status}"), &schema, body, wrong);
        }
        let responses = &operation.value["responses"];
        let mut response = &responses[status.to_string()];
        if response.is_null() {
            let what = format!("status {status}");
            if !is_known(name, &what) {
                wrong.insert(format!("{name}: {what}"));
            }
            response = &responses["200"];
        }
        let schema = &response["content"]["application/json"]["schema"];
        let differs = is_known(name, "body");
        if !schema.is_null() && !differs {
            self.check(&format!("{name} {status}"), schema, body, wrong);
        } else if schema.is_null() && !body.is_null() && !differs {
            wrong.insert(format!("{name}: a body where none is specified"));
        }
    }

    fn check(&self, at: &str, schema: &Value, value: &Value, wrong: &mut BTreeSet<String>) {
        let root = json!({"allOf": [schema], "components": self.0["components"]});
        let validator = jsonschema::options().with_draft(Draft::Draft4).build(&root).unwrap();
        for error in validator.iter_errors(value) {
            let is_code = error.instance_path().to_string() == "/status";
            if !(is_code && is_known("* ErrorResponse", "code")) {
                wrong.insert(format!("{at}: {} {error}", error.instance_path()));
            }
        }
        self.names(at, schema, value, wrong);
    }

    /// Every field of `value` has a name that the schema knows.
    fn names(&self, at: &str, schema: &Value, value: &Value, wrong: &mut BTreeSet<String>) {
        let (title, schema) = self.resolve(schema);
        match value {
            Value::Array(items) => {
                items.iter().for_each(|item| self.names(at, &schema["items"], item, wrong));
            }
            Value::Object(fields) => {
                let known = self.properties(&schema);
                for (name, field) in fields {
                    let open = &schema["additionalProperties"];
                    match known.get(name) {
                        Some(schema) => self.names(&format!("{at}.{name}"), schema, field, wrong),
                        None if open.is_object() => self.names(at, open, field, wrong),
                        None if known.is_empty() => {}
                        None => {
                            if !is_known(&format!("* {title}"), &format!("field {name}")) {
                                wrong.insert(format!("{at}: {title} has no field {name}"));
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn resolve(&self, schema: &Value) -> (String, Value) {
        let Some(reference) = schema["$ref"].as_str() else {
            return (String::new(), schema.clone());
        };
        let name = reference.rsplit('/').next().unwrap();
        (name.to_owned(), self.0["components"]["schemas"][name].clone())
    }

    fn properties(&self, schema: &Value) -> Map<String, Value> {
        let mut known = schema["properties"].as_object().cloned().unwrap_or_default();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            let (_, part) = self.resolve(part);
            known.extend(self.properties(&part));
        }
        known
    }
}
