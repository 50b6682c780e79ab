//! `proto/openapi.yaml` says the same as the operations' declarations, as the crate's words, and as a real server's
//! answers; `proto/openapi.json`, which the server gives out, is the same document.
//!
//! `UPDATE_GOLDEN=1 cargo test --test openapi` writes the latter.

mod answers;
mod schema;
#[path = "../support/mod.rs"]
mod support;
mod yaml;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use mcias::model::account::{AccountStatus, AccountType};
use mcias::model::audit::{EventType, LoginFailure, TotpFailure, Via};
use mcias::model::token::{Amr, RevokeReason};
use mcias::wire::fault;
use mcias::wire::json::Body;
use mcias::wire::ops::{self, Decl, Level};
use schema::{misfits, resolve};
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/openapi.yaml")).unwrap();
    serde_json::from_str(&yaml::to_json(&text)).unwrap()
});

/// The methods a path item may have.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// An operation as the document has it.
fn described(decl: &Decl) -> &'static Value {
    let operation = &DOCUMENT["paths"][decl.path][decl.method.as_str().to_lowercase()];
    assert!(operation.is_object(), "{} {} isn't described", decl.method.as_str(), decl.path);
    operation
}

/// A described operation's responses, `$ref`s followed.
fn responses(decl: &Decl) -> impl Iterator<Item = (u16, &'static Value)> {
    let all = described(decl)["responses"].as_object().unwrap();
    all.iter().map(|(status, response)| (status.parse().unwrap(), resolve(&DOCUMENT, response)))
}

/// A described operation's parameters, those of its path included.
fn parameters(decl: &Decl) -> Vec<&'static Value> {
    let lists = [&DOCUMENT["paths"][decl.path]["parameters"], &described(decl)["parameters"]];
    lists.iter().filter_map(|list| list.as_array()).flatten().map(|p| resolve(&DOCUMENT, p)).collect()
}

#[test]
fn the_json_is_the_yaml() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let json = yaml::to_json(&std::fs::read_to_string(folder.join("openapi.yaml")).unwrap());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(folder.join("openapi.json"), &json).unwrap();
    }
    let given_out = std::fs::read_to_string(folder.join("openapi.json")).unwrap();
    assert!(given_out == json, "proto/openapi.json is stale: UPDATE_GOLDEN=1 cargo test --test openapi");
}

#[test]
fn the_operations_are_those_that_are_declared_and_no_others() {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let mut described = BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            assert!(METHODS.contains(&method.as_str()), "{path} {method}");
            described.insert((operation["operationId"].as_str().unwrap().to_owned(), method.to_uppercase(), path));
        }
    }
    let declared: Vec<_> = ops::ALL.iter().map(|d| (d.name.to_owned(), d.method.as_str().to_owned(), d.path)).collect();
    let described: BTreeSet<_> =
        described.into_iter().map(|(name, method, path)| (name, method, path.as_str())).collect();
    assert_eq!(described, declared.into_iter().collect());
}

#[test]
fn access_body_and_parameters_are_those_that_are_declared() {
    let tags: BTreeSet<_> =
        DOCUMENT["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).map(Value::to_string).collect();
    for decl in ops::ALL {
        let operation = described(decl);
        let bearer = json!({"bearer": []});
        let security = match (decl.level, decl.name) {
            (Level::Public, "ValidateToken") => json!([{}, bearer]),
            (Level::Public, _) => json!([]),
            _ => json!([bearer]),
        };
        assert_eq!(operation["security"], security, "{}", decl.name);
        let body = operation.get("requestBody").map(|body| body["required"] == true);
        let declared = match decl.body {
            Body::None => None,
            Body::Optional => Some(false),
            Body::Required => Some(true),
        };
        assert_eq!(body, declared, "{}", decl.name);
        assert!(
            operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag.to_string())),
            "{}",
            decl.name
        );
        assert!(operation["summary"].is_string(), "{}", decl.name);

        let in_path: Vec<_> = decl.path.split(['{', '}']).skip(1).step_by(2).collect();
        let described = parameters(decl);
        let of_path = described.iter().filter(|p| p["in"] == "path" && p["required"] == true);
        assert_eq!(of_path.map(|p| p["name"].as_str().unwrap()).collect::<Vec<_>>(), in_path, "{}", decl.name);
        assert!(described.iter().all(|p| p["in"] == "path" || p["in"] == "query" && p.get("required").is_none()));
        assert!(described.iter().all(|p| p["description"].is_string()), "{}", decl.name);
    }
}

/// The refusals an operation can come to: those that follow from how it is declared, and its own.
fn refusals(decl: &Decl) -> BTreeSet<u16> {
    // A query parameter that isn't known; an empty bucket.
    let mut all = BTreeSet::from([400, 429]);
    if decl.name != "Health" {
        all.extend([500, 503]);
    }
    match decl.level {
        Level::Public => {}
        Level::AnyToken | Level::Session => all.extend([401]),
        Level::Person | Level::Admin | Level::AdminOrOwner | Level::AdminOrProgram => all.extend([401, 403]),
    }
    if decl.body != Body::None {
        all.extend([413, 415]);
    }
    if decl.path.contains('{') {
        all.insert(404);
    }
    all.extend(match decl.name {
        "Login" | "ValidateToken" => &[401][..],
        "GuardToken" => &[403],
        "RemoveTotp" => &[404],
        "IssueServiceToken" => &[404, 409],
        "ConfirmTotp" | "CreateAccount" | "UpdateAccount" | "DeleteAccount" | "SetPassword" | "SetRoles"
        | "GrantRole" | "RevokeRole" | "SetPGCreds" => &[409],
        _ => &[],
    });
    all
}

#[test]
fn success_and_every_refusal_are_described_with_their_headers_and_codes() {
    for decl in ops::ALL {
        let statuses: BTreeSet<_> = responses(decl).map(|(status, _)| status).collect();
        let expected = BTreeSet::from([decl.status]).into_iter().chain(refusals(decl)).collect();
        assert_eq!(statuses, expected, "{}", decl.name);
        for (status, response) in responses(decl) {
            let at = format!("{} {status}", decl.name);
            let headers = response["headers"].as_object().unwrap();
            let is_required =
                |name: &str| headers.get(name).is_some_and(|header| resolve(&DOCUMENT, header)["required"] == true);
            for name in ["X-Request-Id", "Cache-Control", "X-Content-Type-Options"] {
                assert!(is_required(name), "{at}: {name}");
            }
            assert_eq!(is_required("WWW-Authenticate"), status == 401, "{at}");
            assert_eq!(is_required("Retry-After"), matches!(status, 429 | 503), "{at}");
            assert_eq!(is_required("Location"), decl.name == "CreateAccount" && status == 201, "{at}");
            let is_page = parameters(decl).iter().any(|p| p["name"] == "cursor");
            assert_eq!(headers.contains_key("Link"), is_page && status == 200, "{at}");
            assert_eq!(response.get("content").is_none(), status == 204, "{at}");
            if status >= 400 {
                let code = fault::TABLE.iter().find(|row| row.http == status).unwrap().code;
                let schema = &response["content"]["application/json"]["schema"]["allOf"];
                assert_eq!(schema[0]["$ref"], "#/components/schemas/Error", "{at}");
                assert_eq!(schema[1], json!({"properties": {"code": {"const": code}}}), "{at}");
            }
        }
    }
}

#[test]
fn every_body_has_an_example_and_every_example_fits() {
    let fits = |schema: &Value, example: &Value, at: &str| {
        let found = misfits(&DOCUMENT, schema, example);
        assert!(found.is_empty(), "{at}: {found:#?}");
    };
    let body = |content: &Value, at: &str| {
        let media = &content["application/json"];
        let one = media.get("example").into_iter();
        let several = media["examples"].as_object().into_iter().flatten().map(|(_, example)| &example["value"]);
        let examples: Vec<_> = one.chain(several).collect();
        assert!(!examples.is_empty(), "{at} has no example");
        examples.iter().for_each(|example| fits(&media["schema"], example, at));
    };
    for decl in ops::ALL {
        if let Some(request) = described(decl).get("requestBody") {
            body(&request["content"], decl.name);
        }
        for (status, response) in responses(decl) {
            let at = format!("{} {status}", decl.name);
            if let Some(content) = response.get("content") {
                body(content, &at);
            }
            for header in response["headers"].as_object().unwrap().values().map(|header| resolve(&DOCUMENT, header)) {
                header.get("example").into_iter().for_each(|example| fits(&header["schema"], example, &at));
            }
        }
        for parameter in parameters(decl) {
            parameter.get("example").into_iter().for_each(|example| fits(&parameter["schema"], example, decl.name));
        }
    }
}

#[test]
fn the_words_are_those_of_the_program() {
    let schemas = &DOCUMENT["components"]["schemas"];
    let words = |node: &Value| -> Vec<String> {
        node.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    macro_rules! same {
        ($node:expr, $name:ident) => {
            assert_eq!(
                words($node),
                $name::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>(),
                stringify!($name)
            );
        };
    }
    same!(&schemas["AccountType"]["enum"], AccountType);
    same!(&schemas["AccountStatus"]["enum"], AccountStatus);
    same!(&schemas["RevokeReason"]["enum"], RevokeReason);
    same!(&schemas["EventType"]["enum"], EventType);
    same!(&schemas["Event"]["properties"]["via"]["enum"], Via);
    let details = &schemas["Details"]["properties"];
    same!(&details["amr"]["items"]["enum"], Amr);
    same!(&details["reason"]["anyOf"][1]["enum"], LoginFailure);
    same!(&details["reason"]["anyOf"][2]["enum"], TotpFailure);

    let codes: BTreeSet<_> = words(&schemas["Error"]["properties"]["code"]["enum"]).into_iter().collect();
    let over_grpc_only = ["deadline_exceeded", "unimplemented"];
    let declared = fault::TABLE.iter().map(|row| row.code).filter(|code| !over_grpc_only.contains(code));
    assert_eq!(codes, declared.map(str::to_owned).collect());
}

#[test]
fn nothing_is_without_a_value() {
    // As what follows an unquoted comma in a line of YAML is.
    fn walk(node: &Value, at: &str) {
        assert!(!node.is_null(), "{at}");
        for (name, member) in node.as_object().into_iter().flatten().filter(|(name, _)| *name != "example") {
            walk(member, &format!("{at}/{name}"));
        }
        for (n, item) in node.as_array().into_iter().flatten().enumerate() {
            walk(item, &format!("{at}/{n}"));
        }
    }
    walk(&DOCUMENT, "");
}

#[test]
fn every_object_is_closed() {
    fn walk(node: &Value, at: &str) {
        if node["type"] == "object" && at != "/OpenApi" && !at.starts_with("/OpenApi/") {
            assert_eq!(node["additionalProperties"], false, "{at}");
        }
        for (name, member) in node.as_object().into_iter().flatten() {
            walk(member, &format!("{at}/{name}"));
        }
        for (n, item) in node.as_array().into_iter().flatten().enumerate() {
            walk(item, &format!("{at}/{n}"));
        }
    }
    walk(&DOCUMENT["components"]["schemas"], "");
}
