//! What there is to be known of this service: its abilities, its resources and their schemas (RFC 7643 §5 to §7).

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::{Refused, answer, list, present};
use super::query::{PAGE_ITEMS_MAX, Query};
use super::resource::{GROUP, USER};

const CONFIG: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";
const RESOURCE_TYPE: &str = "urn:ietf:params:scim:schemas:core:2.0:ResourceType";
const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Schema";

/// A schema: its id, its name, what it describes, and its attributes.
type Described = (&'static str, &'static str, &'static str, &'static [Attribute]);
/// An attribute: its path, its type, and words for all that is not as most attributes are; then what it says.
type Attribute = (&'static str, &'static str, &'static str, &'static str);

const SCHEMAS: [Described; 5] = [
    (USER, "User", "A person whom the provider lets in, or no more", USERS),
    (GROUP, "Group", "Users together", GROUPS),
    (CONFIG, "ServiceProviderConfig", "What this service can do", CONFIGS),
    (RESOURCE_TYPE, "ResourceType", "A kind of resource", RESOURCE_TYPES),
    (SCHEMA, "Schema", "The attributes of a kind of resource", SCHEMATA),
];

const USERS: &[Attribute] = &[
    ("userName", "string", "required unique", "By what the user signs in"),
    ("displayName", "string", "", "What people read"),
    ("active", "boolean", "required", "Whether the user may be let in"),
];

const GROUPS: &[Attribute] = &[
    ("displayName", "string", "required", "What people read"),
    ("members", "complex", "many", "The users in it"),
    ("members.value", "string", "immutable exact", "The id of a user"),
    ("members.$ref", "reference", "immutable exact to:User", "The address of the user"),
    ("members.type", "string", "immutable only:User", "What the member is"),
];

const CONFIGS: &[Attribute] = &[
    ("documentationUri", "reference", "fixed exact to:external", "Where this is explained"),
    ("patch", "complex", "fixed required", "Changing parts of a resource"),
    ("patch.supported", "boolean", "fixed required", "Whether it can be done"),
    ("bulk", "complex", "fixed required", "Several requests in one"),
    ("bulk.supported", "boolean", "fixed required", "Whether it can be done"),
    ("bulk.maxOperations", "integer", "fixed required", "How many at most"),
    ("bulk.maxPayloadSize", "integer", "fixed required", "How long at most, in bytes"),
    ("filter", "complex", "fixed required", "Finding resources"),
    ("filter.supported", "boolean", "fixed required", "Whether it can be done"),
    ("filter.maxResults", "integer", "fixed required", "How many are answered at most"),
    ("changePassword", "complex", "fixed required", "Changing passwords"),
    ("changePassword.supported", "boolean", "fixed required", "Whether it can be done"),
    ("sort", "complex", "fixed required", "Sorting resources"),
    ("sort.supported", "boolean", "fixed required", "Whether it can be done"),
    ("etag", "complex", "fixed required", "Versions of resources"),
    ("etag.supported", "boolean", "fixed required", "Whether there are any"),
    ("authenticationSchemes", "complex", "fixed required many", "How to prove who asks"),
    ("authenticationSchemes.type", "string", "fixed required", "The kind"),
    ("authenticationSchemes.name", "string", "fixed required", "Its name"),
    ("authenticationSchemes.description", "string", "fixed required", "What it is"),
    ("authenticationSchemes.specUri", "reference", "fixed exact to:external", "Where it is specified"),
    ("authenticationSchemes.documentationUri", "reference", "fixed exact to:external", "Where it is explained"),
    ("authenticationSchemes.primary", "boolean", "fixed", "Whether it is the best"),
];

const RESOURCE_TYPES: &[Attribute] = &[
    ("id", "string", "fixed", "Its id"),
    ("name", "string", "fixed required", "Its name"),
    ("description", "string", "fixed", "What it is"),
    ("endpoint", "reference", "fixed required exact to:uri", "Where such resources are"),
    ("schema", "reference", "fixed required exact to:uri", "Its schema"),
    ("schemaExtensions", "complex", "fixed many", "Further schemas"),
    ("schemaExtensions.schema", "reference", "fixed required exact to:uri", "Which"),
    ("schemaExtensions.required", "boolean", "fixed required", "Whether every resource has it"),
];

const SCHEMATA: &[Attribute] = &[
    ("id", "string", "fixed required", "Its address"),
    ("name", "string", "fixed", "Its name"),
    ("description", "string", "fixed", "What it describes"),
    ("attributes", "complex", "fixed required many", "The attributes"),
    ("attributes.name", "string", "fixed required exact", "The name"),
    ("attributes.type", "string", "fixed required", "The type"),
    ("attributes.multiValued", "boolean", "fixed required", "Whether there may be several"),
    ("attributes.description", "string", "fixed", "What it says"),
    ("attributes.required", "boolean", "fixed required", "Whether it must be there"),
    ("attributes.canonicalValues", "string", "fixed exact many", "What it is most often"),
    ("attributes.caseExact", "boolean", "fixed", "Whether upper and lower case differ"),
    ("attributes.mutability", "string", "fixed exact", "Who may change it"),
    ("attributes.returned", "string", "fixed exact", "When it is answered"),
    ("attributes.uniqueness", "string", "fixed exact", "Who else may have the same"),
    ("attributes.referenceTypes", "string", "fixed exact many", "What it refers to"),
    ("attributes.subAttributes", "complex", "fixed many", "Its parts"),
    ("attributes.subAttributes.name", "string", "fixed required exact", "The name"),
    ("attributes.subAttributes.type", "string", "fixed required", "The type"),
    ("attributes.subAttributes.multiValued", "boolean", "fixed required", "Whether there may be several"),
    ("attributes.subAttributes.description", "string", "fixed", "What it says"),
    ("attributes.subAttributes.required", "boolean", "fixed required", "Whether it must be there"),
    ("attributes.subAttributes.canonicalValues", "string", "fixed exact many", "What it is most often"),
    ("attributes.subAttributes.caseExact", "boolean", "fixed", "Whether upper and lower case differ"),
    ("attributes.subAttributes.mutability", "string", "fixed exact", "Who may change it"),
    ("attributes.subAttributes.returned", "string", "fixed exact", "When it is answered"),
    ("attributes.subAttributes.uniqueness", "string", "fixed exact", "Who else may have the same"),
    ("attributes.subAttributes.referenceTypes", "string", "fixed exact many", "What it refers to"),
];

pub(super) fn config(base: &str) -> Response {
    let no = json!({ "supported": false });
    answer(
        StatusCode::OK,
        &json!({
            "schemas": [CONFIG],
            "patch": { "supported": true },
            "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
            "filter": { "supported": true, "maxResults": PAGE_ITEMS_MAX },
            "changePassword": no, "sort": no, "etag": no,
            "authenticationSchemes": [{
                "type": "oauthbearertoken", "name": "Bearer", "primary": true,
                "description": "the token of this directory, in the header `Authorization`",
                "specUri": "https://www.rfc-editor.org/rfc/rfc6750",
            }],
            "meta": { "resourceType": "ServiceProviderConfig", "location": format!("{base}/ServiceProviderConfig") },
        }),
    )
}

pub(super) fn resource_types(base: &str, query: &Query) -> Result<Response, Refused> {
    all(&types(base), query)
}

pub(super) fn resource_type(base: &str, id: &str) -> Result<Response, Refused> {
    one(&types(base), id)
}

pub(super) fn schemas(base: &str, query: &Query) -> Result<Response, Refused> {
    all(&described(base), query)
}

pub(super) fn schema(base: &str, id: &str) -> Result<Response, Refused> {
    one(&described(base), id)
}

/// A filter that is not applied would show what was not asked for (RFC 7644 §4).
fn all(resources: &[Value], query: &Query) -> Result<Response, Refused> {
    if query.has_filter() {
        return Err(Refused::filter("these are not filtered"));
    }
    Ok(list(resources.len() as u64, 1, resources))
}

fn one(resources: &[Value], id: &str) -> Result<Response, Refused> {
    let found =
        resources.iter().find(|resource| resource.get("id").is_some_and(|own| own == id)).ok_or(Refused::NotFound)?;
    Ok(answer(StatusCode::OK, found))
}

fn types(base: &str) -> Vec<Value> {
    let one = |name: &str, endpoint: &str, schema: &str| {
        json!({
            "schemas": [RESOURCE_TYPE], "id": name, "name": name, "endpoint": endpoint, "schema": schema,
            "meta": { "resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/{name}") },
        })
    };
    vec![one("User", "/Users", USER), one("Group", "/Groups", GROUP)]
}

fn described(base: &str) -> Vec<Value> {
    let one = |(id, name, description, attributes): &Described| {
        json!({
            "schemas": [SCHEMA], "id": id, "name": name, "description": description,
            "attributes": parts(attributes, ""),
            "meta": { "resourceType": "Schema", "location": format!("{base}/Schemas/{id}") },
        })
    };
    SCHEMAS.iter().map(one).collect()
}

/// The attributes right below a path, each with those below it.
fn parts(attributes: &[Attribute], above: &str) -> Value {
    let below = |path: &str| {
        let name = path.strip_prefix(above)?.trim_start_matches('.').to_owned();
        let is_below = above.is_empty() || path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'));
        (is_below && !name.is_empty() && !name.contains('.')).then_some(name)
    };
    let found = attributes.iter().filter_map(|attribute| {
        let described = attribute_described(&below(attribute.0)?, attribute);
        let parts = parts(attributes, attribute.0);
        Some(match (attribute.1, described) {
            ("complex", Value::Object(mut object)) => {
                object.insert("subAttributes".to_owned(), parts);
                Value::Object(object)
            }
            (_, described) => described,
        })
    });
    found.collect()
}

fn attribute_described(name: &str, (_, kind, words, says): &Attribute) -> Value {
    let has = |word: &str| words.split(' ').any(|other| other == word);
    let after = |word: &str| words.split(' ').find_map(|other| other.strip_prefix(word));
    let mutability = match (has("fixed"), has("immutable")) {
        (true, _) => "readOnly",
        (_, true) => "immutable",
        _ => "readWrite",
    };
    // These are for texts (RFC 7643 §7).
    let case_exact = (!matches!(*kind, "boolean" | "complex" | "integer")).then(|| has("exact"));
    let uniqueness = (*kind != "boolean").then(|| if has("unique") { "server" } else { "none" });
    present(json!({
        "name": name, "type": kind, "multiValued": has("many"), "description": says, "required": has("required"),
        "mutability": mutability, "returned": "default", "caseExact": case_exact, "uniqueness": uniqueness,
        "canonicalValues": after("only:").map(|value| [value]), "referenceTypes": after("to:").map(|kind| [kind]),
    }))
}
