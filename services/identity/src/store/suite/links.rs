//! Identities elsewhere, and proofs of them.

use super::{NOW, account, audit, id, sealed, someone};
use crate::domain::links::Link;
use crate::domain::passwords::NO_PASSWORD;
use crate::store::{Created, Linked, Store, Unlinked};
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn run(store: &Arc<dyn Store>) {
    an_identity_elsewhere_is_of_one_account(store).await;
    an_account_keeps_a_way_in(&**store).await;
    proofs_are_good_once(&**store).await;
}

fn link(account: &str, subject: &str) -> Link {
    Link {
        id: id(),
        authority: "https://id.example".to_owned(),
        subject: subject.to_owned(),
        account: account.to_owned(),
        provider: "example".to_owned(),
        created_at: NOW,
    }
}

async fn an_identity_elsewhere_is_of_one_account(store: &Arc<dyn Store>) {
    // Of many who come for the first time at once one gets an account, and all the same one.
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(store);
        coming.spawn(async move {
            let mut new = account(Some(&id()), Some(id().as_bytes()));
            new.email_verified = true;
            new.link = Some(link(&new.id, "first"));
            store.create_account(&new, &audit("registered", NOW)).await.unwrap()
        });
    }
    let outcomes = coming.join_all().await;
    assert_eq!(outcomes.iter().filter(|one| **one == Created::Done).count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|one| **one == Created::LinkTaken).count(), 7);
    let linked = async |subject: &str| {
        store.linked("https://id.example", subject).await.unwrap().map(|account| account.id)
    };
    let first = linked("first").await.unwrap();
    let found = store.account(&first).await.unwrap().unwrap();
    assert!(found.email_verified, "what the provider has verified");
    assert_eq!(store.linked("https://other.example", "first").await.unwrap().map(|a| a.id), None);
    let add = async |account: &str, subject: &str| {
        let audit = audit("link_added", NOW);
        store.add_link(&link(account, subject), 2, &audit).await.unwrap()
    };
    let other = someone(&**store).await;
    assert_eq!(add(&other, "first").await, Linked::Taken);
    assert_eq!(add(&first, "first").await, Linked::Done, "it is linked already");
    assert_eq!(store.links(&first).await.unwrap().len(), 1);
    assert_eq!(add(&other, "one").await, Linked::Done);
    assert_eq!(add(&other, "two").await, Linked::Done);
    assert_eq!(add(&other, "three").await, Linked::TooMany);
    assert_eq!(linked("three").await, None);
    assert_eq!(linked("two").await, Some(other));
}

async fn an_account_keeps_a_way_in(store: &dyn Store) {
    let remove = async |account: &str, link: &str| {
        store.remove_link(account, link, &audit("link_removed", NOW)).await.unwrap()
    };
    let mut new = account(Some(&id()), None);
    new.password = NO_PASSWORD.to_owned();
    new.link = Some(link(&new.id, "only"));
    store.create_account(&new, &audit("registered", NOW)).await.unwrap();
    let only = store.links(&new.id).await.unwrap().remove(0);
    assert_eq!((only.subject.as_str(), only.provider.as_str()), ("only", "example"));
    assert_eq!(remove(&new.id, &only.id).await, Unlinked::Last);
    let second = link(&new.id, "second");
    store.add_link(&second, 2, &audit("link_added", NOW)).await.unwrap();
    assert_eq!(remove(&someone(store).await, &only.id).await, Unlinked::Nothing);
    assert_eq!(remove(&new.id, &only.id).await, Unlinked::Done);
    assert_eq!(remove(&new.id, &only.id).await, Unlinked::Nothing);
    assert_eq!(remove(&new.id, &second.id).await, Unlinked::Last);
    store.set_password(&new.id, "hash", None, &audit("password_reset", NOW)).await.unwrap();
    assert_eq!(remove(&new.id, &second.id).await, Unlinked::Done, "there is a password now");
}

async fn proofs_are_good_once(store: &dyn Store) {
    let put = async |ticket: &[u8]| {
        let end = NOW.plus(Duration::from_secs(60));
        store.put_proof(&ticket.to_vec(), &sealed("a", b"proof"), end).await.unwrap();
    };
    let take = async |ticket: &[u8], now| store.take_proof(&ticket.to_vec(), now).await.unwrap();
    put(b"proof-1").await;
    assert_eq!(take(b"proof-0", NOW).await, None);
    assert_eq!(take(b"proof-1", NOW).await, Some(sealed("a", b"proof")));
    assert_eq!(take(b"proof-1", NOW).await, None);
    put(b"proof-2").await;
    assert_eq!(take(b"proof-2", NOW.plus(Duration::from_secs(60))).await, None, "too old");
}
