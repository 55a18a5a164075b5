//! The attributes of users and groups: what is read of those that come, and what those are that go out.

use serde_json::{Map, Value, json};
use tenant_store::{
    DirectoryGroup, DirectoryState, DirectoryText, DirectoryUser, DirectoryUserId, Edit, GroupChange, MemberEdit,
    NameError, Timestamp, UserChange,
};

use super::answer::{Refused, present};
use super::filter;
use crate::civil::rfc3339;
use crate::config::{DirectoryNames, GroupAttribute, UserAttribute};

/// The schema of users.
pub(super) const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// The schema of groups.
pub(super) const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
/// What a provider can never change.
const READ_ONLY: [&str; 4] = ["id", "meta", "schemas", "groups"];

/// The members of a JSON object by their names in lower case (RFC 7643 §2.1), each once. Those that are `null` are not there.
pub(super) struct Attributes<'v>(Vec<(String, &'v Value)>);

impl<'v> Attributes<'v> {
    pub(super) fn of(object: &'v Map<String, Value>) -> Result<Self, Refused> {
        let mut all: Vec<(String, &Value)> = Vec::with_capacity(object.len());
        for (name, value) in object {
            let name = filter::attribute_name(name).unwrap_or_else(|| name.to_ascii_lowercase());
            if all.iter().any(|(other, _)| *other == name) {
                return Err(Refused::syntax("an attribute is there twice"));
            }
            all.push((name, value));
        }
        Ok(Self(all))
    }

    /// An attribute by its name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| *value).filter(|value| !value.is_null())
    }
}

pub(super) fn is_read_only(attribute: &str) -> bool {
    READ_ONLY.contains(&attribute)
}

/// What it means for a user that an attribute, in lower case, has this value from now on, or none. What is not kept means nothing.
pub(super) fn set_user(
    change: &mut UserChange,
    names: &DirectoryNames,
    attribute: &str,
    value: Option<&Value>,
) -> Result<(), Refused> {
    match attribute {
        "username" => {
            let name = required("userName", value)?;
            if names.user == UserAttribute::UserName {
                change.subject = Some(subject(names, &name)?);
            }
            change.user_name = Some(name);
        }
        "externalid" => {
            let id = text("externalId", value)?;
            if names.user == UserAttribute::ExternalId {
                let id = id.as_ref().ok_or_else(|| Refused::mutability("externalId"))?;
                change.subject = Some(subject(names, id)?);
            }
            change.external_id = edit(id);
        }
        "displayname" => change.display_name = edit(text("displayName", value)?),
        "active" => change.is_active = Some(active(value)?),
        _ => {}
    }
    Ok(())
}

/// The same for a group, but for its members.
pub(super) fn set_group(
    change: &mut GroupChange,
    names: &DirectoryNames,
    attribute: &str,
    value: Option<&Value>,
) -> Result<(), Refused> {
    match attribute {
        "displayname" => {
            let name = required("displayName", value)?;
            if names.group == GroupAttribute::DisplayName {
                change.name = Some(group_name(names, &name)?);
            }
            change.display_name = Some(name);
        }
        "externalid" => {
            let id = text("externalId", value)?;
            if names.group == GroupAttribute::ExternalId {
                let id = id.as_ref().ok_or_else(|| Refused::mutability("externalId"))?;
                change.name = Some(group_name(names, id)?);
            }
            change.external_id = edit(id);
        }
        _ => {}
    }
    Ok(())
}

/// The members that a value names: one, or a list of them.
pub(super) fn members(value: &Value) -> Result<Vec<DirectoryUserId>, Refused> {
    let ids = member_ids(value)?;
    let id = |id: &str| id.parse().map_err(|_| Refused::value("a member is no user of this directory"));
    ids.into_iter().map(id).collect()
}

/// The same for members that go: a text that is no user's id is no member's either.
pub(super) fn leaving(value: &Value) -> Result<Vec<DirectoryUserId>, Refused> {
    Ok(member_ids(value)?.into_iter().filter_map(|id| id.parse().ok()).collect())
}

fn member_ids(value: &Value) -> Result<Vec<&str>, Refused> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut ids = Vec::with_capacity(values.len());
    for member in values {
        let object = member.as_object().ok_or_else(|| Refused::value("a member is no object"))?;
        let attributes = Attributes::of(object)?;
        let is_user = |kind: &Value| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("User"));
        if !attributes.get("type").is_none_or(is_user) {
            return Err(Refused::value("groups in groups are not supported: their users must be members themselves"));
        }
        let value = attributes.get("value").and_then(Value::as_str);
        ids.push(value.ok_or_else(|| Refused::value("a member has no `value`"))?);
    }
    Ok(ids)
}

/// A whole group's members, as a change.
pub(super) fn replaced(attributes: &Attributes<'_>) -> Result<MemberEdit, Refused> {
    let members = attributes.get("members").map(members).transpose()?;
    Ok(MemberEdit::Replace(members.unwrap_or_default()))
}

pub(super) fn user(base: &str, user: &DirectoryUser) -> Value {
    let location = format!("{base}/Users/{}", user.id);
    present(json!({
        "schemas": [USER], "id": user.id, "externalId": user.external_id, "userName": user.user_name,
        "displayName": user.display_name, "active": user.state == DirectoryState::Active,
        "meta": meta("User", &location, (user.created_at, user.modified_at)),
    }))
}

/// A group, with its members if they are asked for.
pub(super) fn group(base: &str, group: &DirectoryGroup, members: Option<&[DirectoryUser]>) -> Value {
    let member =
        |user: &DirectoryUser| json!({ "value": user.id, "$ref": format!("{base}/Users/{}", user.id), "type": "User" });
    let members: Option<Vec<Value>> = members.map(|members| members.iter().map(member).collect());
    let location = format!("{base}/Groups/{}", group.id);
    present(json!({
        "schemas": [GROUP], "id": group.id, "externalId": group.external_id, "displayName": group.display_name,
        "members": members, "meta": meta("Group", &location, (group.created_at, group.modified_at)),
    }))
}

fn meta(kind: &str, location: &str, (created, modified): (Timestamp, Timestamp)) -> Value {
    json!({
        "resourceType": kind, "created": rfc3339(created), "lastModified": rfc3339(modified), "location": location,
    })
}

fn subject(names: &DirectoryNames, value: &DirectoryText) -> Result<tenant_store::Subject, Refused> {
    let refused = || Refused::value(format!("`{}` is none that names a user", names.user.as_str()));
    names.subject(value.as_str()).ok_or_else(refused)
}

fn group_name(names: &DirectoryNames, value: &DirectoryText) -> Result<tenant_store::Group, Refused> {
    let refused = || Refused::value(format!("`{}` is none that names a group", names.group.as_str()));
    names.group_name(value.as_str()).ok_or_else(refused)
}

fn edit(text: Option<DirectoryText>) -> Edit<DirectoryText> {
    text.map_or(Edit::Clear, Edit::Set)
}

/// A text; nothing, if there is none or it is empty (RFC 7643 §2.5).
fn text(attribute: &'static str, value: Option<&Value>) -> Result<Option<DirectoryText>, Refused> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => {
            let parsed: Result<DirectoryText, NameError> = text.parse();
            Ok(Some(parsed.map_err(|error| Refused::value(format!("`{attribute}`: {error}")))?))
        }
        Some(_) => Err(Refused::value(format!("`{attribute}` is no text"))),
    }
}

/// One that cannot go.
fn required(attribute: &'static str, value: Option<&Value>) -> Result<DirectoryText, Refused> {
    text(attribute, value)?.ok_or_else(|| Refused::mutability(attribute))
}

/// Some providers write it as a text. Whatever is neither is refused, and not taken for either.
fn active(value: Option<&Value>) -> Result<bool, Refused> {
    match value {
        Some(Value::Bool(is_active)) => Ok(*is_active),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        None | Some(Value::Null) => Err(Refused::mutability("active")),
        Some(_) => Err(Refused::value("`active` is `true` or `false`")),
    }
}
