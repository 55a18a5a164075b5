//! From rows to objects: what the database holds, as documents that make it hold the same.

use tenant_store::{
    AccessTest, Grant, ManagerName, Still, Store, StoreError, Tenant, TenantId, TenantScope, TenantSlug, TenantState,
    Upstream,
};

use super::document::Object;

/// What the database holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The objects and who manages them, by tenant, then kind, then name.
    pub objects: Vec<(Object, Option<ManagerName>)>,
    /// What the objects do not say.
    pub unsaid: Vec<Unsaid>,
}

/// A tenant whose state a manifest cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsaid {
    /// Which.
    pub tenant: TenantSlug,
    /// Its state. Of one that is shredded there are no objects.
    pub state: TenantState,
}

/// Reads all tenants, or the one that is named, with what they have; never a secret. Nothing where there is no tenant of that name.
pub async fn export(
    store: &Store,
    only: Option<&TenantSlug>,
    scope: impl Fn(TenantId) -> TenantScope,
) -> Result<Option<Exported>, StoreError> {
    let still = store.still().await?;
    let mut exported = Exported { objects: Vec::new(), unsaid: Vec::new() };
    let mut is_found = only.is_none();
    // A tenant whose row does not parse ends all: a part would look like the whole.
    for tenant in still.tenants(None).await? {
        let tenant = tenant?;
        if only.is_none_or(|only| *only == tenant.slug) {
            is_found = true;
            exported.add(&still, tenant, &scope).await?;
        }
    }
    // The databases sort by rules of their own.
    exported.objects.sort_by_cached_key(|(object, _)| (object.tenant().clone(), object.kind(), object.name()));
    Ok(is_found.then_some(exported))
}

impl Exported {
    async fn add(
        &mut self,
        still: &Still,
        tenant: Tenant,
        scope: impl Fn(TenantId) -> TenantScope,
    ) -> Result<(), StoreError> {
        let Tenant { id, slug, spec, state } = tenant;
        if state != TenantState::Active {
            self.unsaid.push(Unsaid { tenant: slug.clone(), state });
        }
        if state == TenantState::Shredded {
            return Ok(());
        }
        let rows = still.tenant(scope(id));
        let mut objects = Vec::new();
        for Upstream { slug: name, spec, .. } in rows.upstreams().await? {
            objects.push(Object::Upstream { tenant: slug.clone(), slug: name, spec: Box::new(spec) });
        }
        for Grant { name, spec, .. } in rows.grants().await? {
            objects.push(Object::Grant { tenant: slug.clone(), name, spec });
        }
        for AccessTest { name, spec, .. } in rows.access_tests().await? {
            objects.push(Object::AccessTest { tenant: slug.clone(), name, spec });
        }
        objects.push(Object::Tenant { slug, spec });
        let managed = rows.managed().await?;
        let manager = |object: &Object| {
            let (kind, name) = (object.kind().managed(), object.own_name());
            let found = managed.iter().find(|managed| managed.kind == kind && managed.name == name);
            found.map(|managed| managed.manager.clone())
        };
        self.objects.extend(objects.into_iter().map(|object| {
            let manager = manager(&object);
            (object, manager)
        }));
        Ok(())
    }
}
