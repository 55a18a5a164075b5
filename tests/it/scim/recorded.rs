//! What directories push, in the audit record: who said it and of whom, and in nobody else's record.

use anyhow::Result;
use reqwest::Method;
use serde_json::{Value, json};

use super::{BY_NAMES, Bed, GROUP, text, upstream};
use crate::audit::{checked, events, of, stopped};

/// What an event says, without what differs each time.
fn said(event: &Value) -> Value {
    json!([event["issuer"], event["through"], event["outcome"], event["changeCount"], event["changes"]])
}

#[tokio::test]
async fn each_request_that_changes_a_directory_is_one_event_of_the_platforms_and_no_tenants() -> Result<()> {
    let bed = Bed::new("scim_recorded", &upstream().await?, BY_NAMES).await?;
    let (alice, bob) = (bed.add("alice").await?, bed.add("bob").await?);
    let staff = json!({"schemas": [GROUP], "displayName": "staff", "members": [{"value": alice}]});
    let staff = text(&bed.send(Method::POST, "/Groups", &staff, 201).await?, "/id")?;
    let add = json!([{"op": "add", "path": "members", "value": [{"value": alice}, {"value": bob}]}]);
    // What is said twice is new once.
    for _ in 0..2 {
        bed.patch(&format!("/Groups/{staff}"), add.clone(), 204).await?;
        bed.patch(&format!("/Users/{alice}"), json!([{"op": "replace", "path": "active", "value": false}]), 200)
            .await?;
    }
    let renamed = json!([{"op": "replace", "path": "userName", "value": "carol"}]);
    bed.patch(&format!("/Users/{alice}"), renamed, 200).await?;
    bed.send(Method::PUT, &format!("/Groups/{staff}"), &json!({"schemas": [GROUP], "displayName": "crew"}), 200)
        .await?;
    assert_eq!(bed.at(&format!("/Users/{bob}"))?.request(Method::DELETE).await?.status, 204);
    assert_eq!(bed.at(&format!("/Groups/{staff}"))?.request(Method::DELETE).await?.status, 204);
    // What only asks, what is refused, and what nobody proved changes nothing.
    bed.get("/Users").await?;
    bed.send(Method::POST, "/Users", &json!({"userName": "carol"}), 409).await?;
    let nobody = bed.as_bearer(Some("nobody"), "/scim/v2/corp/Users")?;
    assert_eq!(nobody.send_as(Method::POST, json!({"userName": "dave"}).to_string()).await?.status, 401);

    let left = stopped(bed.server).await?;
    let platform = events(&left.store, None).await?;
    let directory = of(&platform, "directory");
    let told: Vec<Value> = directory.iter().map(|event| said(event)).collect();
    let one = |change: Value| json!(["corp", "scim", "done", 1, [change]]);
    let user = |name: &str, became: &str| one(json!({"kind": "user", "name": name, "became": became}));
    let expected = [
        user("alice", "created"),
        user("bob", "created"),
        one(json!({"kind": "group", "name": "staff", "became": "created", "addedCount": 1, "added": ["alice"]})),
        one(json!({"kind": "group", "name": "staff", "became": "changed", "addedCount": 1, "added": ["bob"]})),
        user("alice", "deactivated"),
        one(json!({"kind": "user", "name": "carol", "was": "alice", "became": "changed"})),
        one(json!({
            "kind": "group", "name": "crew", "was": "staff", "became": "changed", "removedCount": 2,
            "removed": ["bob", "carol"],
        })),
        user("bob", "removed"),
        one(json!({"kind": "group", "name": "crew", "became": "removed"})),
    ];
    assert_eq!(told, expected);
    assert!(directory.iter().all(|event| event["requestId"].as_str().is_some_and(|id| id.len() == 32)));
    let acme = events(&left.store, Some("acme")).await?;
    assert!(of(&acme, "directory").is_empty(), "{acme:#?}");
    assert!(checked(&left.store).await?.iter().all(|checked| checked.wrong.is_empty()));
    Ok(())
}
