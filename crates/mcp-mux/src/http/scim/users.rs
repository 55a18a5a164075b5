//! `/Users`.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use tenant_store::{DirectoryFilter, DirectoryUser, DirectoryUserId, Edit, NewDirectoryUser, UserChange};

use super::answer::{Refused, answer, created, list, nothing};
use super::filter::Equals;
use super::resource::{Attributes, set_user, user};
use super::{Asked, patch, read};
use crate::config::UserAttribute;

/// What is kept of a user.
const ATTRIBUTES: [&str; 4] = ["username", "externalid", "displayname", "active"];

impl Asked<'_> {
    pub(super) async fn users(self) -> Result<Response, Refused> {
        let (start, slice) = self.query.slice()?;
        let filters: Vec<DirectoryFilter> = self.query.filter()?.iter().map(wanted).collect::<Result<_, _>>()?;
        let shown = self.query.shown()?;
        let page = self.directory.users(&filters, slice).await?;
        let users = page.items.iter().map(|found| shown.of(user(&self.base, found)));
        Ok(list(page.total, start, &users.collect::<Vec<_>>()))
    }

    pub(super) async fn user(self) -> Result<Response, Refused> {
        let found = self.directory.user(self.user_id()?).await?.ok_or(Refused::NotFound)?;
        self.answer_user(&found)
    }

    pub(super) async fn add_user(self, body: Body) -> Result<Response, Refused> {
        let change = self.whole_user(body).await?;
        let missing = || Refused::value(format!("`{}` is missing", self.names.user.as_str()));
        let new = NewDirectoryUser {
            subject: change.subject.ok_or_else(missing)?,
            external_id: change.external_id.set(),
            user_name: change.user_name.ok_or_else(|| Refused::value("`userName` is missing"))?,
            display_name: change.display_name.set(),
            is_active: change.is_active.unwrap_or(true),
        };
        let shown = self.query.shown()?;
        let added = self.directory.add_user(new).await?;
        Ok(created(&shown.of(user(&self.base, &added))))
    }

    pub(super) async fn put_user(self, body: Body) -> Result<Response, Refused> {
        let id = self.user_id()?;
        let change = self.whole_user(body).await?;
        self.change_user(id, change).await
    }

    pub(super) async fn patch_user(self, body: Body) -> Result<Response, Refused> {
        let id = self.user_id()?;
        let body = read(body).await?;
        let change = patch::user(self.names, &body)?;
        self.change_user(id, change).await
    }

    pub(super) async fn remove_user(self) -> Result<Response, Refused> {
        let is_gone = self.directory.remove_user(self.user_id()?).await?;
        if is_gone { Ok(nothing()) } else { Err(Refused::NotFound) }
    }

    async fn change_user(self, id: DirectoryUserId, change: UserChange) -> Result<Response, Refused> {
        let changed = self.directory.change_user(id, change).await?.ok_or(Refused::NotFound)?;
        self.answer_user(&changed)
    }

    fn answer_user(&self, found: &DirectoryUser) -> Result<Response, Refused> {
        Ok(answer(StatusCode::OK, &self.query.shown()?.of(user(&self.base, found))))
    }

    /// A body that says all about a user. Whether it is active stays as it is, where that is not said.
    async fn whole_user(&self, body: Body) -> Result<UserChange, Refused> {
        let body = read(body).await?;
        let attributes = Attributes::of(&body)?;
        let mut change = UserChange { external_id: Edit::Clear, display_name: Edit::Clear, ..UserChange::default() };
        let naming = self.names.user;
        if attributes.get("username").is_none() {
            return Err(Refused::value("`userName` is missing"));
        }
        if naming == UserAttribute::ExternalId && attributes.get("externalid").is_none() {
            return Err(Refused::value("`externalId` is missing: it is what names a user here"));
        }
        for attribute in ATTRIBUTES {
            if let Some(value) = attributes.get(attribute) {
                set_user(&mut change, self.names, attribute, Some(value))?;
            }
        }
        Ok(change)
    }

    /// A text that is no id is the id of nobody.
    fn user_id(&self) -> Result<DirectoryUserId, Refused> {
        self.id.parse().map_err(|_| Refused::NotFound)
    }
}

fn wanted(term: &Equals) -> Result<DirectoryFilter, Refused> {
    let Value::String(text) = &term.value else { return Err(Refused::filter("such an attribute is a text")) };
    let text = text.clone();
    match term.attribute.as_str() {
        "id" => Ok(DirectoryFilter::Id(text)),
        "username" => Ok(DirectoryFilter::UserName(text)),
        "externalid" => Ok(DirectoryFilter::ExternalId(text)),
        "displayname" => Ok(DirectoryFilter::DisplayName(text)),
        _ => Err(Refused::filter("users are found by `userName`, `externalId`, `id` and `displayName`")),
    }
}
