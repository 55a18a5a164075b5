//! What Entra ID and Okta send, as their makers document it.

use anyhow::{Context as _, Result};
use mcp_mux::config::{GroupAttribute, UserAttribute};
use reqwest::Method;
use serde_json::{Value, json};

use super::{BY_NAMES, Bed, GROUP, USER, query, text, upstream};
use crate::support::canary;

const TENANT: &str = "2c6b1f0e-0000-4000-8000-000000000001";
const ALICE: &str = "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef";

/// A server with a directory of Entra ID, and the path of alice, who came as Microsoft documents it.
async fn entra(name: &str, secret: &str) -> Result<(Bed, String)> {
    let by = (UserAttribute::ExternalId, GroupAttribute::ExternalId);
    let bed = Bed::with(name, &upstream().await?, by, |config| {
        config.directories[0].user_prefix = format!("{TENANT}/");
        Ok(())
    })
    .await?;
    // The test of the connection asks for somebody who is not there.
    let nobody = bed.get(&format!("/Users?{}", query(r#"userName eq "non-existent user""#))).await?;
    assert_eq!((&nobody["totalResults"], &nobody["Resources"]), (&json!(0), &json!([])));
    let new = json!({
        "schemas": [USER, "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"],
        "externalId": ALICE, "userName": "alice@corp.example", "active": true,
        "emails": [{"primary": true, "type": "work", "value": secret}], "meta": {"resourceType": "User"},
        "name": {"formatted": secret, "familyName": secret, "givenName": secret}, "roles": [],
        "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"department": secret},
    });
    let created = bed.send(Method::POST, "/Users", &new, 201).await?;
    assert!(!created.to_string().contains(secret), "{created}");
    let user = format!("/Users/{}", text(&created, "/id")?);
    assert_eq!(text(&created, "/meta/location")?, bed.server.url(&format!("/scim/v2/corp{user}")));
    Ok((bed, user))
}

/// In the older and in the newer form.
#[tokio::test]
async fn what_entra_id_sends_of_users_is_understood() -> Result<()> {
    let secret = canary("mail");
    let (bed, user) = entra("scim_entra_users", &secret).await?;
    let by_id = query(&format!(r#"externalId eq "{ALICE}""#));
    assert_eq!(bed.get(&format!("/Users?{by_id}")).await?["totalResults"], 1);
    let changed = json!([
        {"op": "Replace", "path": "emails[type eq \"work\"].value", "value": secret},
        {"op": "Replace", "path": "name.familyName", "value": secret},
        {"op": "Add", "path": "displayName", "value": "Alice"},
    ]);
    assert_eq!(bed.patch(&user, changed, 200).await?["displayName"], "Alice");
    let subject = format!("{TENANT}/{ALICE}");
    for disable in [json!("False"), json!(false), json!([{"$ref": null, "value": "False"}])] {
        let switch = |value: Value| json!([{"op": "Replace", "path": "active", "value": value}]);
        assert_eq!(bed.patch(&user, switch(disable), 200).await?["active"], false);
        assert_eq!(bed.revoked().await?, [subject.as_str()]);
        assert_eq!(bed.patch(&user, switch(json!("True")), 200).await?["active"], true);
        assert_eq!(bed.revoked().await?, [""; 0]);
    }
    // What says who it is cannot go.
    let gone = bed.patch(&user, json!([{"op": "Remove", "path": "externalId"}]), 400).await?;
    assert_eq!(gone["scimType"], "mutability");
    bed.send(Method::DELETE, &user, &Value::Null, 204).await?;
    assert_eq!(bed.revoked().await?, [subject]);
    let stored = bed.server.database.stolen()?;
    assert!(!String::from_utf8_lossy(&stored).contains(&secret), "what is not used is not stored");
    Ok(())
}

/// In the older and in the newer form.
#[tokio::test]
async fn what_entra_id_sends_of_groups_is_understood() -> Result<()> {
    let (bed, user) = entra("scim_entra_groups", &canary("mail")).await?;
    let new = json!({
        "schemas": [GROUP, "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
        "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159", "displayName": "Analysts", "meta": {"resourceType": "Group"},
    });
    let created = bed.send(Method::POST, "/Groups", &new, 201).await?;
    let (own, id) = (text(&created, "/id")?, text(&bed.get(&user).await?, "/id")?);
    let by_name = query(r#"displayName eq "Analysts""#);
    let found = bed.get(&format!("/Groups?excludedAttributes=members&{by_name}")).await?;
    assert_eq!((&found["totalResults"], found.pointer("/Resources/0/members")), (&json!(1), None));
    let (group, subject) = (format!("/Groups/{own}"), format!("{TENANT}/{ALICE}"));
    let member = |op: &str| json!([{"op": op, "path": "members", "value": [{"$ref": null, "value": id}]}]);
    for remove in [member("Remove"), json!([{"op": "remove", "path": format!("members[value eq \"{id}\"]")}])] {
        bed.patch(&group, member("Add"), 204).await?;
        assert_eq!(bed.groups_of(&subject).await?, ["8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159"]);
        let is_in = query(&format!(r#"id eq "{own}" and members eq "{id}""#));
        assert_eq!(bed.get(&format!("/Groups?{is_in}")).await?["totalResults"], 1);
        bed.patch(&group, remove, 204).await?;
        assert_eq!(bed.groups_of(&subject).await?, [""; 0]);
    }
    Ok(())
}

/// As Okta documents its requests.
#[tokio::test]
async fn what_okta_sends_is_understood() -> Result<()> {
    let bed = Bed::new("scim_okta", &upstream().await?, BY_NAMES).await?;
    let empty = bed.get("/Users?startIndex=1&count=2").await?;
    assert_eq!((&empty["totalResults"], &empty["startIndex"]), (&json!(0), &json!(1)));
    bed.get("/Groups?startIndex=1&count=100").await?;
    let by_name = format!("/Users?{}&startIndex=1&count=100", query(r#"userName eq "test.user@okta.local""#));
    assert_eq!(bed.get(&by_name).await?["totalResults"], 0);
    let password = canary("password");
    let mut profile = json!({
        "schemas": [USER], "userName": "test.user@okta.local", "name": {"givenName": "Test", "familyName": "User"},
        "emails": [{"primary": true, "value": "test.user@okta.local", "type": "work"}], "displayName": "Test User",
        "locale": "en-US", "externalId": "00ujl29u0le5T6Aj10h7", "groups": [], "password": password, "active": true,
    });
    let created = bed.send(Method::POST, "/Users", &profile, 201).await?;
    assert!(created.get("password").is_none() && created.get("emails").is_none(), "{created}");
    let id = text(&created, "/id")?;
    let user = format!("/Users/{id}");
    assert_eq!(bed.get(&by_name).await?.pointer("/Resources/0/id"), Some(&json!(id)));

    profile["id"] = json!(id);
    profile["displayName"] = json!("Test Other");
    profile["meta"] = json!({"resourceType": "User"});
    assert_eq!(bed.send(Method::PUT, &user, &profile, 200).await?["displayName"], "Test Other");
    profile["active"] = json!(false);
    bed.send(Method::PUT, &user, &profile, 200).await?;
    assert_eq!(bed.revoked().await?, ["test.user@okta.local"]);
    // Not to say it is not to let somebody in.
    profile.as_object_mut().context("an object")?.remove("active");
    assert_eq!(bed.send(Method::PUT, &user, &profile, 200).await?["active"], false);
    let without_path = |value: Value| json!([{"op": "replace", "value": value}]);
    bed.patch(&user, without_path(json!({"active": true})), 200).await?;
    assert_eq!(bed.revoked().await?, [""; 0]);
    bed.patch(&user, without_path(json!({"password": password})), 200).await?;
    bed.patch(&user, without_path(json!({"active": false})), 200).await?;
    assert_eq!(bed.revoked().await?, ["test.user@okta.local"]);
    bed.patch(&user, without_path(json!({"active": true})), 200).await?;

    let new = json!({"schemas": [GROUP], "displayName": "acme", "members": [{"value": id, "display": "test.user@okta.local"}]});
    let created = bed.send(Method::POST, "/Groups", &new, 201).await?;
    assert_eq!(text(&created, "/members/0/value")?, id);
    let (group, own) = (format!("/Groups/{}", text(&created, "/id")?), text(&created, "/id")?);
    bed.patch(&group, without_path(json!({"id": own, "displayName": "acme-analysts"})), 204).await?;
    assert_eq!(bed.groups_of("test.user@okta.local").await?, ["acme-analysts"]);
    let edits = json!([
        {"op": "remove", "path": format!("members[value eq \"{id}\"]")},
        {"op": "add", "path": "members", "value": [{"value": id, "display": "test.user@okta.local"}]},
    ]);
    bed.patch(&group, edits, 204).await?;
    assert_eq!(bed.get(&group).await?.pointer("/members/0/value"), Some(&json!(id)));
    bed.patch(&group, json!([{"op": "replace", "path": "members", "value": []}]), 204).await?;
    assert_eq!(bed.get(&group).await?["members"], json!([]));
    bed.send(Method::DELETE, &group, &Value::Null, 204).await?;
    assert_eq!(bed.at(&group)?.request(Method::GET).await?.status, 404);
    Ok(())
}
