//! The table against SPDK's own description of its methods, which its sources have as `schema/schema.json`.

use std::path::PathBuf;

use serde_json::Value;

use super::shape::Shape;
use super::table::{self, Origin, Param};

/// The schema, or why it is not looked at.
fn schema() -> Option<Value> {
    let Some(directory) = std::env::var_os("VTARGET_SPDK_DIR") else {
        println!("skipped: VTARGET_SPDK_DIR names no checkout of SPDK");
        return None;
    };
    let path = PathBuf::from(directory).join("schema/schema.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} cannot be read", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).expect("SPDK's schema is JSON"))
}

fn find<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|it| it["name"] == name)
}

/// Whether a shape of ours takes what SPDK calls this type.
fn fits(shape: &Shape, kind: &str) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Named(_) => ["object", "enum", "array", "string"].contains(&kind),
        Shape::Either(shapes) => shapes.iter().any(|shape| fits(shape, kind)),
        Shape::Text => ["string", "uuid", "enum"].contains(&kind),
        Shape::Bool => kind == "boolean",
        Shape::Int(name, ..) => {
            let width = kind.trim_start_matches("uint").trim_start_matches("int");
            let sign = if kind.starts_with("uint") { 'u' } else { 'i' };
            name.strip_prefix(sign) == Some(width)
        }
        Shape::Is(value) => match value {
            Value::Number(_) => kind.contains("int") || kind == "enum",
            _ => kind == "enum",
        },
        Shape::List(_) => kind == "array",
        Shape::Map(_) | Shape::Object { .. } => kind == "object",
    }
}

#[test]
fn the_table_has_spdks_parameters() {
    let Some(schema) = schema() else {
        return;
    };
    let mut problems = Vec::new();
    for family in table::read() {
        for method in &family.methods {
            let name = &method.name;
            let mut problem = |text: String| problems.push(format!("{name}: {text}"));
            let Some(theirs) = find(&schema["methods"], name) else {
                if !method.ours {
                    problem("SPDK has no such method: say `ours = true`".to_owned());
                }
                continue;
            };
            if method.ours {
                problem("SPDK has it too: it is not `ours`".to_owned());
            }
            let none = Vec::new();
            let theirs = theirs["params"].as_array().unwrap_or(&none);
            let ours = |name: &Value| method.params.iter().find(|param| *name == *param.name);
            for param in theirs {
                let (name, kind) = (&param["name"], param["type"].as_str().unwrap_or_default());
                let required = param["required"] == true;
                match ours(name) {
                    None => problem(format!("the parameter {name} ({kind}) is missing")),
                    Some(Param {
                        origin: Origin::Ours,
                        ..
                    }) => problem(format!("{name} is SPDK's too")),
                    Some(param) if param.required != required => {
                        problem(format!("{name} is required: {required}"));
                    }
                    Some(param) if !fits(&param.shape, kind) => {
                        problem(format!("{name} is {}, not {kind}", param.shape));
                    }
                    Some(_) => {}
                }
            }
            for param in method
                .params
                .iter()
                .filter(|param| param.origin == Origin::Spdk)
            {
                if theirs.iter().all(|it| it["name"] != *param.name) {
                    problem(format!("SPDK has no {}: mark it with + or ~", param.name));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
