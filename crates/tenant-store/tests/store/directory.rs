//! Directories: who is pushed is known, who is not active or was removed is revoked, and no directory touches another one's rows.

use std::time::Duration;

use sea_orm::ConnectionTrait as _;
use tenant_store::testing::is_on_postgres;
use tenant_store::{
    Directory, DirectoryFilter, DirectoryState, DirectoryUserId, Edit, GroupChange, Leavers, ListedGroup, MemberEdit,
    NewDirectoryGroup, NewDirectoryUser, Pulled, Revoked, Slice, Store, StoreError, UserChange,
};

use crate::support::Bed;

const ALL: Slice = Slice { skip: 0, count: 100 };

fn new(name: &str, is_active: bool) -> anyhow::Result<NewDirectoryUser> {
    Ok(NewDirectoryUser {
        subject: name.parse()?,
        external_id: Some(format!("ext-{name}").parse()?),
        user_name: format!("{name}@corp.example").parse()?,
        display_name: Some(format!("{name} of Corp").parse()?),
        is_active,
    })
}

fn corp(bed: &Bed) -> anyhow::Result<Directory> {
    Ok(bed.directory(&"corp".parse()?))
}

fn activity(is_active: bool) -> UserChange {
    UserChange { is_active: Some(is_active), ..UserChange::default() }
}

/// Whoever is revoked, with the reason.
async fn revoked(store: &Store) -> anyhow::Result<Vec<String>> {
    let all = store.still().await?.revocations().await?;
    let mut shown: Vec<String> = all
        .into_iter()
        .map(|one| match one.what {
            Revoked::Principal { issuer, subject } => format!("{issuer}/{subject}: {}", one.reason),
            other => format!("{other:?}"),
        })
        .collect();
    shown.sort();
    Ok(shown)
}

/// The names of those who are revoked after `doing`, and whether the revision moved meanwhile.
async fn after<T>(
    bed: &Bed,
    doing: impl Future<Output = Result<T, StoreError>>,
) -> anyhow::Result<(T, Vec<String>, bool)> {
    let before = bed.revision().await?;
    let done = doing.await?;
    let names = revoked(bed).await?.iter().filter_map(|text| Some(text.split_once(':')?.0.to_owned())).collect();
    Ok((done, names, bed.revision().await? != before))
}

#[tokio::test]
async fn whoever_is_not_active_is_revoked_and_the_revision_moves_exactly_then() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let none = Vec::<String>::new();
    let (alice, names, moved) = after(&bed, corp.add_user(new("alice", true)?)).await?;
    assert_eq!((names, moved), (none.clone(), false));
    let renamed = UserChange { display_name: Edit::Set("A".parse()?), external_id: Edit::Clear, ..activity(true) };
    let (_, names, moved) = after(&bed, corp.change_user(alice.id, renamed)).await?;
    assert_eq!((names, moved), (none.clone(), false));

    bed.away.clock.advance(Duration::from_secs(5));
    let (changed, names, moved) = after(&bed, corp.change_user(alice.id, activity(false))).await?;
    assert_eq!((names, moved), (vec!["corp/alice".to_owned()], true));
    assert!(changed.is_some_and(|user| user.since > alice.since && user.state == DirectoryState::Inactive));
    let reason = "corp/alice: the directory of corp says that this user is not active";
    assert_eq!(revoked(&bed).await?, [reason]);
    let (_, _, moved) = after(&bed, corp.change_user(alice.id, activity(false))).await?;
    assert!(!moved, "nothing changed");
    let (_, names, moved) = after(&bed, corp.change_user(alice.id, activity(true))).await?;
    assert_eq!((names, moved), (none, true));
    let (_, names, moved) = after(&bed, corp.add_user(new("bob", false)?)).await?;
    assert_eq!((names, moved), (vec!["corp/bob".to_owned()], true));
    Ok(())
}

#[tokio::test]
async fn whoever_is_removed_stays_revoked_and_forgotten_until_created_again() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let alice = corp.add_user(new("alice", true)?).await?;
    let (removed, names, moved) = after(&bed, corp.remove_user(alice.id)).await?;
    assert_eq!((removed, names, moved), (true, vec!["corp/alice".to_owned()], true));
    assert_eq!(revoked(&bed).await?, ["corp/alice: the directory of corp has removed this user"]);
    assert!(!corp.remove_user(alice.id).await?);
    assert_eq!(corp.user(alice.id).await?, None);
    assert_eq!(corp.change_user(alice.id, activity(true)).await?, None, "nobody brings back what is not there");
    assert_eq!(corp.users(&[], ALL).await?.total, 0);
    let left = corp.of_subject(&"alice".parse()?).await?.ok_or_else(|| anyhow::anyhow!("a row stays"))?;
    assert_eq!((left.user_name.as_str(), &left.external_id, &left.display_name), ("alice", &None, &None));

    let (again, names, moved) = after(&bed, corp.add_user(new("alice", false)?)).await?;
    assert_eq!((names, moved), (vec!["corp/alice".to_owned()], false), "as before, so nobody is told");
    assert_ne!(again.id, alice.id);
    corp.remove_user(again.id).await?;
    let (_, names, moved) = after(&bed, corp.add_user(new("alice", true)?)).await?;
    assert_eq!((names, moved), (Vec::new(), true));
    Ok(())
}

#[tokio::test]
async fn a_name_that_a_user_had_before_is_revoked() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let alice = corp.add_user(new("alice", true)?).await?;
    let bob = corp.add_user(new("bob", true)?).await?;
    let named = |name: &str| anyhow::Ok(UserChange { subject: Some(name.parse()?), ..UserChange::default() });
    let (_, names, moved) = after(&bed, corp.change_user(alice.id, named("alicia")?)).await?;
    assert_eq!((names, moved), (vec!["corp/alice".to_owned()], true));
    let taken = corp.change_user(alice.id, named("bob")?).await.unwrap_err();
    assert!(matches!(taken, StoreError::DirectoryTaken { what: "subject" }), "{taken}");
    // Whoever is not active does not slip away under another name.
    corp.change_user(bob.id, activity(false)).await?;
    let (_, names, moved) = after(&bed, corp.change_user(bob.id, named("robert")?)).await?;
    let three = ["corp/alice", "corp/bob", "corp/robert"].map(str::to_owned);
    assert_eq!((names, moved), (three.to_vec(), true));
    // A name that nobody has any more can be had again.
    let (_, names, moved) = after(&bed, corp.change_user(alice.id, named("alice")?)).await?;
    let three = ["corp/alicia", "corp/bob", "corp/robert"].map(str::to_owned);
    assert_eq!((names, moved), (three.to_vec(), true));
    Ok(())
}

#[tokio::test]
async fn what_changes_at_the_same_time_is_not_lost() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let alice = corp.add_user(new("alice", true)?).await?;
    let renamed = |number| UserChange {
        display_name: Edit::Set(format!("Alice {number}").parse().unwrap()),
        ..UserChange::default()
    };
    let (one, two, three) = tokio::join!(
        corp.change_user(alice.id, renamed(1)),
        corp.change_user(alice.id, activity(false)),
        corp.change_user(alice.id, renamed(2)),
    );
    one.and(two).and(three)?;
    assert_eq!(revoked(&bed).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_operators_own_revocation_stays_when_the_directory_lets_somebody_in_again() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let alice = corp.add_user(new("alice", true)?).await?;
    let what = Revoked::Principal { issuer: "corp".parse()?, subject: "alice".parse()? };
    bed.revoke(&what, "by hand").await?;
    corp.change_user(alice.id, activity(false)).await?;
    assert_eq!(revoked(&bed).await?.len(), 2);
    corp.change_user(alice.id, activity(true)).await?;
    assert_eq!(revoked(&bed).await?, ["corp/alice: by hand"]);
    corp.change_user(alice.id, activity(false)).await?;
    assert!(bed.reinstate(&what).await?.is_some());
    assert!(bed.reinstate(&what).await?.is_none());
    assert_eq!(revoked(&bed).await?.len(), 1, "the directory's word is not an operator's to take back");
    Ok(())
}

#[tokio::test]
async fn a_user_name_is_one_users_in_whatever_case() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let alice = corp.add_user(new("alice", true)?).await?;
    let bob = corp.add_user(new("bob", true)?).await?;
    let shouted = || anyhow::Ok("ALICE@corp.example".parse()?);
    let other = NewDirectoryUser { user_name: shouted()?, ..new("carol", true)? };
    let taken = corp.add_user(other.clone()).await.unwrap_err();
    assert!(matches!(taken, StoreError::DirectoryTaken { what: "userName" }), "{taken}");
    let change = UserChange { user_name: Some(shouted()?), ..UserChange::default() };
    assert!(corp.change_user(bob.id, change.clone()).await.is_err());
    assert!(corp.change_user(alice.id, change).await?.is_some(), "one's own is free");
    let taken = corp.add_user(new("alice", true)?).await.unwrap_err();
    assert!(matches!(taken, StoreError::DirectoryTaken { what: "subject" }), "{taken}");
    corp.remove_user(alice.id).await?;
    corp.add_user(other).await?;
    Ok(())
}

#[tokio::test]
async fn users_and_groups_are_found_by_what_they_are_called() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let mut ids = Vec::new();
    for name in ["alice", "bob", "carol"] {
        ids.push(corp.add_user(new(name, true)?).await?.id);
    }
    let group = NewDirectoryGroup {
        name: "acme".parse()?,
        external_id: Some("g-1".parse()?),
        display_name: "Acme People".parse()?,
        members: ids.iter().take(2).copied().collect(),
    };
    let acme = corp.add_group(group.clone()).await?;
    // Providers have several groups of a name.
    let same = corp.add_group(NewDirectoryGroup { members: vec![ids[2]], ..group }).await?;
    let text = str::to_owned;
    for (filters, found) in [
        (vec![DirectoryFilter::UserName(text("Alice@Corp.example"))], 1),
        (vec![DirectoryFilter::ExternalId(text("ext-alice"))], 1),
        (vec![DirectoryFilter::ExternalId(text("EXT-alice"))], 0),
        (vec![DirectoryFilter::DisplayName(text("ALICE of corp"))], 1),
        (vec![DirectoryFilter::Id(ids[0].to_string())], 1),
        (vec![DirectoryFilter::Id(text("' OR 1=1 --"))], 0),
        (vec![DirectoryFilter::Id(ids[0].to_string()), DirectoryFilter::ExternalId(text("ext-bob"))], 0),
        (vec![DirectoryFilter::Member(ids[0].to_string())], 0),
    ] {
        assert_eq!(corp.users(&filters, ALL).await?.total, found, "{filters:?}");
    }
    for (filters, found) in [
        (vec![DirectoryFilter::DisplayName(text("acme PEOPLE"))], 2),
        (vec![DirectoryFilter::Id(acme.id.to_string()), DirectoryFilter::Member(ids[0].to_string())], 1),
        (vec![DirectoryFilter::Member(ids[2].to_string())], 1),
        (vec![DirectoryFilter::Member(text("%"))], 0),
        (vec![DirectoryFilter::UserName(text("acme"))], 0),
    ] {
        assert_eq!(corp.groups(&filters, ALL).await?.total, found, "{filters:?}");
    }
    let page = corp.users(&[], Slice { skip: 1, count: 1 }).await?;
    assert_eq!((page.total, page.items.len()), (3, 1));
    assert_eq!(corp.users(&[], Slice { skip: 0, count: 0 }).await?.items, []);
    assert_eq!(corp.groups_of(&"carol".parse()?).await?.iter().map(|group| group.id).collect::<Vec<_>>(), [same.id]);
    assert_eq!(corp.people(Some(&"acme".parse()?)).await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn members_come_and_go_and_nobody_is_told() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let before = bed.revision().await?;
    let alice = corp.add_user(new("alice", true)?).await?.id;
    // Ids of the same moment are in no order.
    bed.away.clock.advance(Duration::from_secs(1));
    let bob = corp.add_user(new("bob", true)?).await?.id;
    let new_group = |members| {
        anyhow::Ok(NewDirectoryGroup { name: "a".parse()?, external_id: None, display_name: "A".parse()?, members })
    };
    let group = corp.add_group(new_group(vec![alice, alice])?).await?;
    let edit = async |edits: Vec<MemberEdit>| {
        let change = GroupChange { members: edits, ..GroupChange::default() };
        corp.change_group(group.id, change).await?;
        anyhow::Ok(corp.members(group.id).await?.iter().map(|user| user.id).collect::<Vec<_>>())
    };
    assert_eq!(edit(vec![MemberEdit::Add(vec![bob, alice])]).await?, [alice, bob]);
    assert_eq!(edit(vec![MemberEdit::Remove(vec![alice]), MemberEdit::Remove(vec![alice])]).await?, [bob]);
    assert_eq!(edit(vec![MemberEdit::Replace(Vec::new()), MemberEdit::Add(vec![alice])]).await?, [alice]);
    let stranger = bed.directory(&"partner".parse()?).add_user(new("mallory", true)?).await?.id;
    // One change is all or nothing.
    let error = edit(vec![MemberEdit::Replace(vec![bob]), MemberEdit::Add(vec![stranger])]).await.unwrap_err();
    assert!(error.to_string().contains("there is no user of the directory"), "{error}");
    assert_eq!(edit(Vec::new()).await?, [alice]);
    assert!(corp.add_group(new_group(vec![stranger])?).await.is_err());
    assert_eq!(bed.revision().await?, before, "nobody gains or loses anything by it");
    corp.remove_user(alice).await?;
    assert_eq!(edit(Vec::new()).await?, []);
    assert!(corp.remove_group(group.id).await? && !corp.remove_group(group.id).await?);
    Ok(())
}

#[tokio::test]
async fn a_directory_reads_and_writes_its_own_rows_only() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let (corp, partner) = (corp(&bed)?, bed.directory(&"partner".parse()?));
    let alice = corp.add_user(new("alice", true)?).await?;
    let group = NewDirectoryGroup {
        name: "acme".parse()?,
        external_id: None,
        display_name: "acme".parse()?,
        members: vec![alice.id],
    };
    let acme = corp.add_group(group).await?;
    assert_eq!(partner.user(alice.id).await?, None);
    assert_eq!(partner.change_user(alice.id, activity(false)).await?, None);
    assert!(!partner.remove_user(alice.id).await?);
    assert_eq!(partner.group(acme.id).await?, None);
    assert_eq!(partner.change_group(acme.id, GroupChange::default()).await?, None);
    assert!(!partner.remove_group(acme.id).await?);
    assert_eq!(partner.members(acme.id).await?, []);
    assert_eq!((partner.users(&[], ALL).await?.total, partner.groups(&[], ALL).await?.total), (0, 0));
    assert_eq!((partner.people(None).await?, partner.groups_of(&"alice".parse()?).await?), (vec![], vec![]));
    assert_eq!((partner.as_of().await?, partner.forget().await?), (None, 0));
    // The same name at another issuer is somebody else.
    let other = partner.add_user(new("alice", false)?).await?;
    let reason = "partner/alice: the directory of partner says that this user is not active";
    assert_eq!(revoked(&bed).await?, [reason]);
    assert!(corp.as_of().await?.is_some() && corp.members(acme.id).await?.len() == 1);
    partner.remove_user(other.id).await?;
    let (count, names, moved) = after(&bed, partner.forget()).await?;
    assert_eq!((count, names, moved), (1, Vec::new(), true));
    assert_eq!(corp.user(alice.id).await?.map(|user| user.id), Some(alice.id));
    Ok(())
}

#[tokio::test]
async fn a_row_that_was_altered_is_revoked_rather_than_let_in() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    corp.add_user(new("alice", true)?).await?;
    assert_eq!(bed.sql("UPDATE directory_user SET state = 'no such state'", Vec::new()).await?, 1);
    assert_eq!(revoked(&bed).await?.len(), 1);
    assert!(corp.of_subject(&"alice".parse()?).await.is_err());
    let nobodys =
        "INSERT INTO directory_user VALUES ('dus_1', '', 's', NULL, 'n', 'n', NULL, NULL, 'removed', 1, 1, 1)";
    assert_eq!(bed.sql(nobodys, Vec::new()).await?, 1);
    assert!(bed.still().await?.revocations().await.is_err(), "it might be anybody's");
    Ok(())
}

#[tokio::test]
async fn who_is_about_one_tenant_sees_no_directory() -> anyhow::Result<()> {
    if !is_on_postgres() {
        return Ok(());
    }
    let bed = Bed::new().await?;
    let corp = corp(&bed)?;
    let alice: DirectoryUserId = corp.add_user(new("alice", true)?).await?.id;
    let group =
        NewDirectoryGroup { name: "a".parse()?, external_id: None, display_name: "a".parse()?, members: vec![alice] };
    corp.add_group(group).await?;
    for table in ["directory_user", "directory_group", "directory_member"] {
        for whose in [bed.acme.id.to_string(), String::new(), "*".to_owned()] {
            let count = crate::postgres::counted_as(&bed, &whose, table).await?;
            assert_eq!(count, i64::from(whose == "*"), "{table} {whose}");
        }
    }
    let other = bed.other().await?;
    let found = other.execute_unprepared("UPDATE directory_user SET display_name = 'x'").await?.rows_affected();
    assert_eq!(found, 1, "somebody with a database tool sees it");
    Ok(())
}

/// Pulls a list that was asked for just now.
async fn pull(bed: &Bed, list: &[NewDirectoryUser]) -> anyhow::Result<Pulled> {
    bed.away.clock.advance(Duration::from_secs(1));
    Ok(corp(bed)?.pull_users(list, bed.now(), Leavers::Few).await?)
}

fn listed(n: usize) -> anyhow::Result<NewDirectoryUser> {
    Ok(NewDirectoryUser {
        subject: format!("tid/{n}").parse()?,
        external_id: Some(n.to_string().parse()?),
        user_name: format!("user{n}@corp.example").parse()?,
        display_name: None,
        is_active: true,
    })
}

#[tokio::test]
async fn a_whole_list_takes_the_place_of_what_was_known_and_tells_only_who_is_let_in() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let all = || (0..1_200).map(listed).collect::<anyhow::Result<Vec<_>>>();
    let before = bed.revision().await?;
    let pulled = pull(&bed, &all()?).await?;
    assert_eq!(pulled, Pulled { added: 1_200, changed: 0, removed: 0 });
    assert_eq!(pull(&bed, &all()?).await?, Pulled::default());
    let mut renamed = all()?;
    renamed[7].display_name = Some("Seven".parse()?);
    assert_eq!(pull(&bed, &renamed).await?, Pulled { changed: 1, ..Pulled::default() });
    assert_eq!(bed.revision().await?, before, "nobody is let in or kept out by that");

    renamed[8].is_active = false;
    renamed.truncate(1_198);
    assert_eq!(pull(&bed, &renamed).await?, Pulled { added: 0, changed: 1, removed: 2 });
    assert!(bed.revision().await? > before);
    let gone: Vec<_> = bed.still().await?.revocations().await?.into_iter().map(|revocation| revocation.what).collect();
    for subject in ["tid/8", "tid/1198", "tid/1199"] {
        let who = Revoked::Principal { issuer: "corp".parse()?, subject: subject.parse()? };
        assert!(gone.contains(&who), "{subject}");
    }
    assert_eq!(gone.len(), 3);
    // And back again.
    assert_eq!(pull(&bed, &all()?).await?, Pulled { added: 2, changed: 2, removed: 0 });
    assert!(bed.still().await?.revocations().await?.is_empty());
    // Another issuer's are others.
    assert!(bed.directory(&"other".parse()?).people(None).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_list_that_would_shut_many_out_is_not_believed() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let directory = bed.directory(&"corp".parse()?);
    let some = |count: usize| (0..count).map(listed).collect::<anyhow::Result<Vec<_>>>();
    pull(&bed, &some(100)?).await?;
    for list in [Vec::new(), some(50)?, some(79)?] {
        let error = pull(&bed, &list).await.unwrap_err();
        let error = error.downcast_ref::<StoreError>();
        assert!(matches!(error, Some(StoreError::DirectoryShrinks { active: 100, .. })), "{error:?}");
    }
    let mut inactive = some(100)?;
    for user in &mut inactive {
        user.is_active = false;
    }
    assert!(pull(&bed, &inactive).await.is_err());
    assert!(bed.still().await?.revocations().await?.is_empty(), "nobody was shut out");
    assert_eq!(pull(&bed, &some(80)?).await?.removed, 20, "a few may go whatever their share");
    // Somebody looked at it.
    let now = bed.now();
    assert_eq!(directory.pull_users(&some(10)?, now, Leavers::Any).await?.removed, 70);
    assert!(pull(&bed, &[]).await.is_err(), "all, however few they are");
    assert_eq!(bed.still().await?.revocations().await?.len(), 90);
    Ok(())
}

#[tokio::test]
async fn an_older_list_undoes_nothing_that_was_said_since() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let directory = corp(&bed)?;
    let both = [listed(0)?, listed(1)?, listed(2)?];
    pull(&bed, &both).await?;
    let began = bed.now();
    bed.away.clock.advance(Duration::from_secs(5));
    let leaver = NewDirectoryUser { is_active: false, ..listed(0)? };
    pull(&bed, &[leaver, listed(1)?, listed(2)?, listed(3)?]).await?;
    // It was asked for before and comes after.
    assert_eq!(directory.pull_users(&both, began, Leavers::Few).await?, Pulled::default());
    let gone = revoked(&bed).await?;
    assert!(gone.len() == 1 && gone[0].starts_with("corp/tid/0:"), "{gone:?}");
    assert!(directory.of_subject(&"tid/3".parse()?).await?.is_some_and(|user| !user.is_away()));
    Ok(())
}

#[tokio::test]
async fn groups_that_are_pulled_have_the_members_that_the_directory_knows() -> anyhow::Result<()> {
    let bed = Bed::new().await?;
    let directory = bed.directory(&"corp".parse()?);
    pull(&bed, &(0..3).map(listed).collect::<anyhow::Result<Vec<_>>>()?).await?;
    let group = |name: &str, members: &[&str]| -> anyhow::Result<ListedGroup> {
        let members = members.iter().map(|member| member.parse()).collect::<Result<_, _>>()?;
        Ok(ListedGroup {
            name: name.parse()?,
            external_id: Some(name.parse()?),
            display_name: "Staff".parse()?,
            members,
        })
    };
    let names = async |subject: &str| -> anyhow::Result<Vec<String>> {
        let groups = directory.groups_of(&subject.parse()?).await?;
        Ok(groups.into_iter().map(|group| group.name.to_string()).collect())
    };
    let lists = || Ok::<_, anyhow::Error>(vec![group("g1", &["tid/0", "tid/1", "tid/99"])?, group("g2", &["tid/1"])?]);
    assert_eq!(directory.pull_groups(lists()?).await?.added, 2);
    assert_eq!(directory.pull_groups(lists()?).await?, Pulled::default());
    assert_eq!(names("tid/1").await?, ["g1", "g2"]);
    let pulled = directory.pull_groups(vec![group("g1", &["tid/0", "tid/2"])?]).await?;
    assert_eq!(pulled, Pulled { added: 0, changed: 1, removed: 1 });
    assert_eq!((names("tid/1").await?.len(), names("tid/2").await?), (0, vec!["g1".to_owned()]));
    // Whoever is removed is in no group any more, also when they are there again.
    pull(&bed, &[listed(0)?, listed(1)?]).await?;
    pull(&bed, &(0..3).map(listed).collect::<anyhow::Result<Vec<_>>>()?).await?;
    assert!(names("tid/2").await?.is_empty());
    Ok(())
}
