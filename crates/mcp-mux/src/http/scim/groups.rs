//! `/Groups`.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use tenant_store::{
    DirectoryFilter, DirectoryGroup, DirectoryGroupId, Edit, GroupChange, MemberEdit, NewDirectoryGroup,
};

use super::answer::{Refused, answer, created, list, nothing};
use super::filter::Equals;
use super::query::Shown;
use super::resource::{Attributes, group, replaced, set_group};
use super::{Asked, patch, read};
use crate::config::GroupAttribute;

/// What is kept of a group, besides its members.
const ATTRIBUTES: [&str; 2] = ["displayname", "externalid"];
/// From how many members on no further group is put on a page. One group at least is.
const PAGE_MEMBERS_MAX: usize = 10_000;

impl Asked<'_> {
    pub(super) async fn groups(self) -> Result<Response, Refused> {
        let (start, slice) = self.query.slice()?;
        let filters: Vec<DirectoryFilter> = self.query.filter()?.iter().map(wanted).collect::<Result<_, _>>()?;
        let shown = self.query.shown()?;
        let page = self.directory.groups(&filters, slice).await?;
        let (mut groups, mut members) = (Vec::new(), 0);
        for found in &page.items {
            let resource = self.resource(found, &shown).await?;
            members += resource.get("members").and_then(Value::as_array).map_or(0, Vec::len);
            groups.push(resource);
            if members >= PAGE_MEMBERS_MAX {
                break;
            }
        }
        Ok(list(page.total, start, &groups))
    }

    pub(super) async fn group(self) -> Result<Response, Refused> {
        let found = self.directory.group(self.group_id()?).await?.ok_or(Refused::NotFound)?;
        self.answer_group(&found).await
    }

    pub(super) async fn add_group(self, body: Body) -> Result<Response, Refused> {
        let mut change = self.whole_group(body).await?;
        let members = match change.members.pop() {
            Some(MemberEdit::Replace(members)) => members,
            _ => Vec::new(),
        };
        let missing = || Refused::value(format!("`{}` is missing", self.names.group.as_str()));
        let new = NewDirectoryGroup {
            name: change.name.ok_or_else(missing)?,
            external_id: change.external_id.set(),
            display_name: change.display_name.ok_or_else(|| Refused::value("`displayName` is missing"))?,
            members,
        };
        let shown = self.query.shown()?;
        let added = self.directory.add_group(new).await?;
        Ok(created(&self.resource(&added, &shown).await?))
    }

    pub(super) async fn put_group(self, body: Body) -> Result<Response, Refused> {
        let id = self.group_id()?;
        let change = self.whole_group(body).await?;
        let changed = self.directory.change_group(id, change).await?.ok_or(Refused::NotFound)?;
        self.answer_group(&changed).await
    }

    /// Answers no body, unless one is asked for: a group may have many members, and providers change one after the other.
    pub(super) async fn patch_group(self, body: Body) -> Result<Response, Refused> {
        let id = self.group_id()?;
        let body = read(body).await?;
        let change = patch::group(self.names, &body)?;
        let changed = self.directory.change_group(id, change).await?.ok_or(Refused::NotFound)?;
        if self.query.says_attributes() { self.answer_group(&changed).await } else { Ok(nothing()) }
    }

    pub(super) async fn remove_group(self) -> Result<Response, Refused> {
        let is_gone = self.directory.remove_group(self.group_id()?).await?;
        if is_gone { Ok(nothing()) } else { Err(Refused::NotFound) }
    }

    async fn answer_group(&self, found: &DirectoryGroup) -> Result<Response, Refused> {
        let shown = self.query.shown()?;
        Ok(answer(StatusCode::OK, &self.resource(found, &shown).await?))
    }

    async fn resource(&self, found: &DirectoryGroup, shown: &Shown) -> Result<Value, Refused> {
        let members = if shown.has("members") { Some(self.directory.members(found.id).await?) } else { None };
        Ok(shown.of(group(&self.base, found, members.as_deref())))
    }

    /// A body that says all about a group.
    async fn whole_group(&self, body: Body) -> Result<GroupChange, Refused> {
        let body = read(body).await?;
        let attributes = Attributes::of(&body)?;
        if attributes.get("displayname").is_none() {
            return Err(Refused::value("`displayName` is missing"));
        }
        if self.names.group == GroupAttribute::ExternalId && attributes.get("externalid").is_none() {
            return Err(Refused::value("`externalId` is missing: it is what names a group here"));
        }
        let members = vec![replaced(&attributes)?];
        let mut change = GroupChange { external_id: Edit::Clear, members, ..GroupChange::default() };
        for attribute in ATTRIBUTES {
            if let Some(value) = attributes.get(attribute) {
                set_group(&mut change, self.names, attribute, Some(value))?;
            }
        }
        Ok(change)
    }

    /// A text that is no id is the id of nothing.
    fn group_id(&self) -> Result<DirectoryGroupId, Refused> {
        self.id.parse().map_err(|_| Refused::NotFound)
    }
}

fn wanted(term: &Equals) -> Result<DirectoryFilter, Refused> {
    let Value::String(text) = &term.value else { return Err(Refused::filter("such an attribute is a text")) };
    let text = text.clone();
    match term.attribute.as_str() {
        "id" => Ok(DirectoryFilter::Id(text)),
        "externalid" => Ok(DirectoryFilter::ExternalId(text)),
        "displayname" => Ok(DirectoryFilter::DisplayName(text)),
        "members" | "members.value" => Ok(DirectoryFilter::Member(text)),
        _ => Err(Refused::filter("groups are found by `displayName`, `externalId`, `id` and `members.value`")),
    }
}
