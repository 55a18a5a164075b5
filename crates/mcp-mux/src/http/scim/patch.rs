//! PATCH (RFC 7644 §3.5.2): a list of operations becomes one change, of which nothing is done if any operation is refused.

use serde_json::{Map, Value};
use tenant_store::{DirectoryUserId, GroupChange, MemberEdit, UserChange};

use super::answer::Refused;
use super::path::{self, Target, Which};
use super::resource::{self, Attributes, is_read_only, set_group, set_user};
use crate::config::DirectoryNames;

/// Most operations in a request.
const OPERATIONS_MAX: usize = 1_000;
/// What is kept of users and of groups, and has no parts.
const SIMPLE: [&str; 4] = ["username", "externalid", "displayname", "active"];
const MEMBERS: &str = "members";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Replace,
    Remove,
}

/// One thing that is to be done: to what, and the new value.
struct Step<'v> {
    op: Op,
    target: Target,
    value: Option<&'v Value>,
    /// Whether the operation had no path. Then what cannot be changed is passed over, for some providers send it along.
    is_along: bool,
}

pub(super) fn user(names: &DirectoryNames, body: &Map<String, Value>) -> Result<UserChange, Refused> {
    let mut change = UserChange::default();
    for step in steps(body)? {
        if let Some((attribute, value)) = step.simple()? {
            set_user(&mut change, names, attribute, value)?;
        }
    }
    Ok(change)
}

pub(super) fn group(names: &DirectoryNames, body: &Map<String, Value>) -> Result<GroupChange, Refused> {
    let mut change = GroupChange::default();
    for step in steps(body)? {
        if step.target.attribute == MEMBERS {
            change.members.push(step.members()?);
        } else if let Some((attribute, value)) = step.simple()? {
            set_group(&mut change, names, attribute, value)?;
        }
    }
    Ok(change)
}

/// The operations of a request, those without a path taken apart.
fn steps(body: &Map<String, Value>) -> Result<Vec<Step<'_>>, Refused> {
    let operations = Attributes::of(body)?.get("operations").and_then(Value::as_array);
    let operations = operations.ok_or_else(|| Refused::syntax("`Operations` is missing"))?;
    if operations.len() > OPERATIONS_MAX {
        return Err(Refused::value(format!("there are more than {OPERATIONS_MAX} operations")));
    }
    let mut steps = Vec::new();
    for operation in operations {
        let operation = operation.as_object().ok_or_else(|| Refused::syntax("an operation is no object"))?;
        let operation = Attributes::of(operation)?;
        let op = op(operation.get("op"))?;
        let value = operation.get("value");
        match operation.get("path") {
            Some(Value::String(text)) if !text.is_empty() => {
                let target = path::parse(text).ok_or_else(|| Refused::path("a path is none"))?;
                steps.push(Step { op, target, value, is_along: false });
            }
            None | Some(Value::String(_)) => steps.extend(without_path(op, value)?),
            Some(_) => return Err(Refused::path("a path is no text")),
        }
    }
    Ok(steps)
}

/// An operation whose value says what it is done to.
fn without_path(op: Op, value: Option<&Value>) -> Result<Vec<Step<'_>>, Refused> {
    if op == Op::Remove {
        return Err(Refused::Bad { kind: "noTarget", detail: "`remove` needs a path".to_owned() });
    }
    let object = value.and_then(Value::as_object);
    let object = object.ok_or_else(|| Refused::value("an operation without a path has an object as its value"))?;
    // The same attribute twice, in another case, would be one of them by chance.
    Attributes::of(object)?;
    let step = |(name, value): (&'_ String, _)| {
        let target = path::parse(name).ok_or_else(|| Refused::path("an attribute of a value is none"))?;
        Ok(Step { op, target, value: Some(value), is_along: true })
    };
    object.iter().map(step).collect()
}

fn op(value: Option<&Value>) -> Result<Op, Refused> {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    match text.to_ascii_lowercase().as_str() {
        "add" => Ok(Op::Add),
        "replace" => Ok(Op::Replace),
        "remove" => Ok(Op::Remove),
        _ => Err(Refused::syntax("`op` is `add`, `replace` or `remove`")),
    }
}

/// Entra ID wraps the one value of an attribute as if there were several: `[{"value": …}]`.
fn alone(value: &Value) -> &Value {
    let Some([one]) = value.as_array().map(Vec::as_slice) else { return value };
    one.get("value").unwrap_or(value)
}

impl<'v> Step<'v> {
    /// An attribute without parts that is kept, perhaps, and what it is from now on; nothing, where nothing is to be done.
    fn simple(&self) -> Result<Option<(&str, Option<&'v Value>)>, Refused> {
        let Target { attribute, which, part } = &self.target;
        if is_read_only(attribute) {
            return if self.is_along { Ok(None) } else { Err(Refused::mutability(attribute)) };
        }
        if SIMPLE.contains(&attribute.as_str()) && (*which != Which::All || part.is_some()) {
            return Err(Refused::path(format!("`{attribute}` has no parts")));
        }
        let value = if self.op == Op::Remove { None } else { self.value.map(alone) };
        if self.op != Op::Remove && self.value.is_none() && !self.is_along {
            return Err(Refused::value("an operation has no value"));
        }
        Ok(Some((attribute, value)))
    }

    fn members(&self) -> Result<MemberEdit, Refused> {
        if self.target.part.is_some() {
            return Err(Refused::path("of a member only the whole can be changed"));
        }
        let value = self.value.filter(|value| !value.is_null());
        match (&self.target.which, self.op, value) {
            (Which::All, Op::Add, Some(value)) => Ok(MemberEdit::Add(resource::members(value)?)),
            (Which::All, Op::Replace, Some(value)) => Ok(MemberEdit::Replace(resource::members(value)?)),
            (Which::All, Op::Remove, Some(value)) => Ok(MemberEdit::Remove(resource::leaving(value)?)),
            (Which::All, Op::Remove, None) => Ok(MemberEdit::Replace(Vec::new())),
            (Which::All, ..) => Err(Refused::value("an operation has no value")),
            (_, Op::Remove, _) => Ok(MemberEdit::Remove(self.one_member()?)),
            _ => Err(Refused::path("a member is added or removed, and not changed")),
        }
    }

    /// The member that the path names: `[value eq "…"]`.
    fn one_member(&self) -> Result<Vec<DirectoryUserId>, Refused> {
        let unsupported = || Refused::filter("a member is named as `members[value eq \"…\"]`");
        let Which::Equal(terms) = &self.target.which else { return Err(unsupported()) };
        let [term] = terms.as_slice() else { return Err(unsupported()) };
        let id = term.value.as_str().filter(|_| term.attribute == "value").ok_or_else(unsupported)?;
        Ok(id.parse().ok().into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use tenant_store::Edit;

    use super::*;
    use crate::config::{GroupAttribute, UserAttribute};

    const ID: &str = "dus_0192f0c1a2b37c4d8e5f60718293a4b5";

    fn names() -> DirectoryNames {
        DirectoryNames { user: UserAttribute::UserName, user_prefix: String::new(), group: GroupAttribute::DisplayName }
    }

    fn of_user(operations: &Value) -> Result<UserChange, String> {
        let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations});
        user(&names(), body.as_object().unwrap()).map_err(|error| error.to_string())
    }

    fn of_group(operations: &Value) -> Result<GroupChange, String> {
        group(&names(), json!({"operations": operations}).as_object().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn whoever_is_not_active_is_told_in_every_way_in_which_providers_tell_it() {
        for operations in [
            json!([{"op": "Replace", "path": "active", "value": false}]),
            json!([{"op": "Replace", "path": "active", "value": "False"}]),
            json!([{"op": "Replace", "path": "active", "value": [{"$ref": null, "value": "False"}]}]),
            json!([{"op": "replace", "value": {"active": false}}]),
            json!([{"op": "add", "value": {"Active": "false", "id": "x", "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department": "d"}}]),
            json!([{"OP": "REPLACE", "PATH": "urn:ietf:params:scim:schemas:core:2.0:User:active", "VALUE": false}]),
            json!([{"op": "Add", "path": "emails[type eq \"work\"].value", "value": "a@b.example"}, {"op": "Replace", "path": "active", "value": false}]),
        ] {
            assert_eq!(
                of_user(&operations),
                Ok(UserChange { is_active: Some(false), ..UserChange::default() }),
                "{operations}"
            );
        }
    }

    #[test]
    fn an_attribute_is_changed_and_what_is_not_kept_is_passed_over() {
        let operations = json!([
            {"op": "Replace", "path": "displayName", "value": "Alice"},
            {"op": "remove", "path": "externalId"},
            {"op": "Replace", "path": "name.familyName", "value": "A"},
            {"op": "Replace", "value": {"userName": "alice", "name.givenName": "B", "password": "CANARY-password"}},
        ]);
        let wanted = UserChange {
            subject: "alice".parse().ok(),
            external_id: Edit::Clear,
            user_name: "alice".parse().ok(),
            display_name: Edit::Set("Alice".parse().unwrap()),
            is_active: None,
        };
        assert_eq!(of_user(&operations), Ok(wanted));
    }

    #[test]
    fn what_cannot_be_done_is_refused_as_a_whole() {
        for operation in [
            json!({"op": "move", "path": "active", "value": false}),
            json!({"path": "active", "value": false}),
            json!({"op": "replace", "path": "active"}),
            json!({"op": "replace", "path": "active", "value": "no"}),
            json!({"op": "replace", "path": "active", "value": 0}),
            json!({"op": "replace", "path": "active", "value": [{"value": false}, {"value": true}]}),
            json!({"op": "replace", "path": "active", "value": [false]}),
            json!({"op": "remove", "path": "active"}),
            json!({"op": "remove", "path": "userName"}),
            json!({"op": "replace", "path": "userName", "value": ""}),
            json!({"op": "replace", "path": "userName", "value": "a\nb"}),
            json!({"op": "replace", "path": "userName", "value": "a".repeat(300)}),
            json!({"op": "replace", "path": "active[value eq true]", "value": false}),
            json!({"op": "replace", "path": "active.value", "value": false}),
            json!({"op": "replace", "path": "id", "value": "x"}),
            json!({"op": "replace", "path": "a b", "value": "x"}),
            json!({"op": "replace", "path": 1, "value": "x"}),
            json!({"op": "replace", "value": {"active": false, "ACTIVE": true}}),
            json!({"op": "replace", "value": "x"}),
            json!({"op": "remove"}),
            json!("replace"),
        ] {
            let operations = json!([{"op": "replace", "path": "displayName", "value": "x"}, operation]);
            assert!(of_user(&operations).is_err(), "{operation}");
        }
        assert!(of_user(&json!(1)).is_err());
        assert!(of_user(&Value::Array(vec![json!({"op": "add", "value": {}}); OPERATIONS_MAX + 1])).is_err());
    }

    #[test]
    fn members_come_and_go_one_change_after_the_other() {
        let id: DirectoryUserId = ID.parse().unwrap();
        for (operation, edit) in [
            (
                json!({"op": "Add", "path": "members", "value": [{"$ref": null, "value": ID}]}),
                MemberEdit::Add(vec![id]),
            ),
            (
                json!({"op": "add", "path": "members", "value": {"value": ID, "display": "a"}}),
                MemberEdit::Add(vec![id]),
            ),
            (json!({"op": "add", "value": {"members": [{"value": ID, "type": "user"}]}}), MemberEdit::Add(vec![id])),
            (
                json!({"op": "Remove", "path": "members", "value": [{"$ref": null, "value": ID}]}),
                MemberEdit::Remove(vec![id]),
            ),
            (json!({"op": "remove", "path": format!("members[value eq \"{ID}\"]")}), MemberEdit::Remove(vec![id])),
            (json!({"op": "remove", "path": "members[value eq \"nobody\"]"}), MemberEdit::Remove(Vec::new())),
            (json!({"op": "remove", "path": "members"}), MemberEdit::Replace(Vec::new())),
            (json!({"op": "replace", "path": "members", "value": [{"value": ID}]}), MemberEdit::Replace(vec![id])),
            (json!({"op": "replace", "value": {"members": []}}), MemberEdit::Replace(Vec::new())),
        ] {
            let wanted = GroupChange { members: vec![edit], ..GroupChange::default() };
            assert_eq!(of_group(&json!([operation])), Ok(wanted), "{operation}");
        }
        for operation in [
            json!({"op": "add", "path": "members"}),
            json!({"op": "add", "path": "members", "value": [{"value": "nobody"}]}),
            json!({"op": "add", "path": "members", "value": [{"value": 1}]}),
            json!({"op": "add", "path": "members", "value": ["x"]}),
            json!({"op": "add", "path": "members", "value": [{"value": ID, "type": "Group"}]}),
            json!({"op": "remove", "path": "members[value co \"x\"]"}),
            json!({"op": "remove", "path": "members[display eq \"x\"]"}),
            json!({"op": "remove", "path": format!("members[value eq \"{ID}\"].display")}),
            json!({"op": "replace", "path": format!("members[value eq \"{ID}\"]"), "value": {"value": ID}}),
        ] {
            assert!(of_group(&json!([operation])).is_err(), "{operation}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_as_an_operation_is_read_or_refused(
            op in "(add|Replace|remove|x)?",
            path in r#"(members|active|displayName|id|[a-z.]{0,5})(\[value eq "[a-z"\]]{0,4}\])?(\.[a-z]{0,3})?"#,
            value in prop_oneof![
                Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!(true)), Just(json!([[{}]])),
                Just(json!({"members": {"value": []}})), any::<String>().prop_map(Value::from),
            ],
        ) {
            let operations = json!([{"op": op, "path": path, "value": value}]);
            drop((of_user(&operations), of_group(&operations)));
        }
    }
}
