//! What every engine of the port does.

mod links;

use super::{Audit, Counted, Created, Handle, NewAccount, NewSession, Rotation, Store, StoredKey};
use crate::domain::key_life::Dates;
use crate::domain::lockout::ACCOUNT;
use crate::domain::{ApiKey, Purpose, SealedText, Session};
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{Pattern, Timestamp};
use stormwire_tokens::Role;

const NOW: Timestamp = Timestamp(1_795_250_000_000);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Runs all of it on an empty database.
pub(crate) async fn run(store: Arc<dyn Store>) {
    assert!(store.ping().await.is_err(), "there are no tables yet");
    store.migrate().await.unwrap();
    run_on_tables(store).await;
}

/// The same where the tables are there.
pub(crate) async fn run_on_tables(store: Arc<dyn Store>) {
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    accounts_are_found_and_neither_name_nor_address_is_given_twice(&*store).await;
    of_many_who_want_one_name_one_gets_it(&store).await;
    a_new_password_ends_the_other_sessions(&*store).await;
    a_token_is_exchanged_once_and_a_second_time_ends_the_session(&*store).await;
    of_fifty_at_once_one_is_answered_and_the_family_dies(&store).await;
    an_account_has_so_many_sessions_and_not_more(&*store).await;
    sessions_end_one_by_one(&*store).await;
    guesses_at_the_same_moment_count_each(&store).await;
    tickets_are_good_once(&store).await;
    keys_of_backends_are_so_many_and_found_while_they_are_good(&store).await;
    links::run(&store).await;
    whatever_shuts_out_is_in_the_list(&*store).await;
    a_generation_of_keys_is_taken_once(&store).await;
    what_is_sealed_elsewhere_is_found_and_replaced(&*store).await;
    what_has_ended_is_removed(&*store).await;
}

fn id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn audit(kind: &'static str, at: Timestamp) -> Audit {
    let ip = "192.0.2.1".to_owned();
    Audit { at, kind, account: None, session: None, ip, detail: String::new() }
}

fn sealed(key: &str, bytes: &[u8]) -> SealedText {
    SealedText { key: key.to_owned(), bytes: bytes.to_vec() }
}

fn account(name: Option<&str>, email: Option<&[u8]>) -> NewAccount {
    NewAccount {
        id: id(),
        name: name.map(|name| (name.to_uppercase(), name.to_owned(), name.replace('1', "l"))),
        email_verified: false,
        link: None,
        email: email.map(|index| (sealed("a", &[index, b"-sealed"].concat()), index.to_vec())),
        password: "hash".to_owned(),
        role: Role::User,
        created_at: NOW,
    }
}

async fn someone(store: &dyn Store) -> String {
    let new = account(Some(&id()), None);
    assert_eq!(store.create_account(&new, &audit("registered", NOW)).await.unwrap(), Created::Done);
    new.id
}

/// A session of the account with the first token `token`.
async fn session(store: &dyn Store, account: &str, token: &[u8], at: Timestamp) -> String {
    let session = Session {
        id: id(),
        account: account.to_owned(),
        created_at: at,
        used_at: at,
        expires_at: at.plus(WEEK),
        ip: "192.0.2.1".to_owned(),
        agent: "test".to_owned(),
    };
    let id = session.id.clone();
    let new = NewSession { session, token: token.to_vec(), sessions_max: 3 };
    store.open_session(&new, &audit("signed_in", at)).await.unwrap();
    id
}

async fn open(store: &dyn Store, account: &str) -> Vec<String> {
    let sessions = store.sessions(account, NOW.plus(Duration::from_secs(60))).await.unwrap();
    sessions.into_iter().map(|session| session.id).collect()
}

async fn rotate(store: &dyn Store, shown: &[u8], next: &[u8], at: Timestamp) -> Rotation {
    let audit = audit("refresh_token_reused", at);
    store.rotate(&shown.to_vec(), &next.to_vec(), at.plus(WEEK), &audit).await.unwrap()
}

async fn accounts_are_found_and_neither_name_nor_address_is_given_twice(store: &dyn Store) {
    let create = async |new: &NewAccount| {
        store.create_account(new, &audit("registered", NOW)).await.unwrap()
    };
    let alice = account(Some("alice"), Some(b"alice@"));
    assert_eq!(create(&alice).await, Created::Done);
    assert_eq!(create(&account(Some("alice"), None)).await, Created::NameTaken);
    // Another name that looks the same.
    assert_eq!(create(&account(Some("a1ice"), None)).await, Created::NameTaken);
    assert_eq!(create(&account(None, Some(b"alice@"))).await, Created::EmailTaken);
    assert_eq!(create(&account(Some("bob"), Some(b"alice@"))).await, Created::EmailTaken);
    assert_eq!(create(&account(None, Some(b"bob@"))).await, Created::Done);
    for handle in [Handle::Name("alice".to_owned()), Handle::Email(b"alice@".to_vec())] {
        let found = store.account_by(&handle).await.unwrap().unwrap();
        assert_eq!((found.id.as_str(), found.name.as_deref()), (alice.id.as_str(), Some("ALICE")));
        assert_eq!(found.email, Some(sealed("a", b"alice@-sealed")));
        assert_eq!((found.role, found.email_verified), (Role::User, false));
    }
    for handle in [Handle::Name("bob".to_owned()), Handle::Email(b"x".to_vec())] {
        assert!(store.account_by(&handle).await.unwrap().is_none(), "{handle:?}");
    }
    assert!(store.account("nobody").await.unwrap().is_none());
    store.verify_email(&alice.id, &audit("email_verified", NOW)).await.unwrap();
    assert!(store.set_role(&alice.id, Role::Admin, &audit("role_given", NOW)).await.unwrap());
    assert!(!store.set_role("nobody", Role::Admin, &audit("role_given", NOW)).await.unwrap());
    let found = store.account(&alice.id).await.unwrap().unwrap();
    assert_eq!((found.role, found.email_verified), (Role::Admin, true));
}

async fn of_many_who_want_one_name_one_gets_it(store: &Arc<dyn Store>) {
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let store = Arc::clone(store);
        asking.spawn(async move {
            let new = account(Some("wanted"), None);
            store.create_account(&new, &audit("registered", NOW)).await.unwrap()
        });
    }
    let outcomes = asking.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Created::Done).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Created::NameTaken).count(), 11);
}

async fn a_new_password_ends_the_other_sessions(store: &dyn Store) {
    let account = someone(store).await;
    let keep = session(store, &account, b"p-1", NOW).await;
    session(store, &account, b"p-2", NOW).await;
    let audit = audit("password_changed", NOW);
    assert!(store.set_password(&account, "new", Some(&keep), &audit).await.unwrap());
    assert_eq!(open(store, &account).await, [keep]);
    assert_eq!(rotate(store, b"p-2", b"p-3", NOW).await, Rotation::Refused);
    assert!(!store.set_password("nobody", "new", None, &audit).await.unwrap());
    // An upgrade loses against a password that was set meanwhile.
    store.upgrade_password(&account, "hash", "upgraded").await.unwrap();
    assert_eq!(store.account(&account).await.unwrap().unwrap().password, "new");
    store.upgrade_password(&account, "new", "upgraded").await.unwrap();
    assert_eq!(store.account(&account).await.unwrap().unwrap().password, "upgraded");
    assert!(store.set_password(&account, "newer", None, &audit).await.unwrap());
    assert!(open(store, &account).await.is_empty());
}

/// Each line behind `after` of one account: its session, or none.
async fn revoked(store: &dyn Store, account: &str, after: i64) -> Vec<Option<String>> {
    let lines = store.revocations(after, Timestamp(0), 10_000).await.unwrap();
    assert!(lines.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    lines.into_iter().filter(|line| line.account == account).map(|line| line.session).collect()
}

async fn whatever_shuts_out_is_in_the_list(store: &dyn Store) {
    let user = someone(store).await;
    let before = store.newest_revocation().await.unwrap();
    let at = |seconds| NOW.plus(Duration::from_secs(seconds));
    let mut sessions = Vec::new();
    for n in 0..3_u8 {
        sessions.push(Some(session(store, &user, &[n, 201], at(u64::from(n))).await));
    }
    assert!(revoked(store, &user, before).await.is_empty(), "nothing has ended yet");
    // One too many ends the oldest; one is signed out; one token comes twice.
    let fourth = Some(session(store, &user, &[3, 201], at(3)).await);
    store.revoke_by_token(&vec![1, 201], &audit("signed_out", at(4))).await.unwrap();
    rotate(store, &[2, 201], &[4, 201], at(4)).await;
    rotate(store, &[2, 201], &[5, 201], at(5)).await;
    assert_eq!(revoked(store, &user, before).await, sessions);
    // A role, a block with what is open then, and the way back.
    store.set_role(&user, Role::Moderator, &audit("role_given", at(6))).await.unwrap();
    assert!(store.set_blocked(&user, true, &audit("account_blocked", at(7))).await.unwrap());
    let found = store.account(&user).await.unwrap().unwrap();
    assert_eq!((found.blocked, found.changed_at), (true, at(7)));
    assert!(open(store, &user).await.is_empty());
    assert!(store.set_blocked(&user, false, &audit("account_unblocked", at(8))).await.unwrap());
    assert!(!store.account(&user).await.unwrap().unwrap().blocked);
    let mut due = sessions;
    due.extend([None, None, fourth, None]);
    assert_eq!(revoked(store, &user, before).await, due);
    // Everywhere at once; and nobody is not blocked.
    let fifth = session(store, &user, &[6, 201], at(9)).await;
    assert_eq!(store.end_sessions(&user, &audit("signed_out", at(9))).await.unwrap(), 1);
    assert_eq!(revoked(store, &user, before).await.last(), Some(&Some(fifth)));
    assert!(!store.set_blocked("nobody", true, &audit("account_blocked", NOW)).await.unwrap());
    let newest = store.newest_revocation().await.unwrap();
    assert!(revoked(store, &user, newest).await.is_empty());
    assert!(store.revocations(0, at(3600), 10).await.unwrap().is_empty(), "older than asked for");
}

async fn a_token_is_exchanged_once_and_a_second_time_ends_the_session(store: &dyn Store) {
    let account = someone(store).await;
    let session = session(store, &account, b"r-1", NOW).await;
    let done = Rotation::Done { account: account.clone(), session: session.clone() };
    assert_eq!(rotate(store, b"r-1", b"r-2", NOW).await, done);
    assert_eq!(rotate(store, b"r-2", b"r-3", NOW.plus(WEEK / 2)).await, done);
    let until = store.sessions(&account, NOW).await.unwrap()[0].expires_at;
    assert_eq!(until, NOW.plus(WEEK / 2).plus(WEEK), "a session that is used lasts");
    assert_eq!(rotate(store, b"unknown", b"r-4", NOW).await, Rotation::Refused);
    let late = NOW.plus(WEEK / 2).plus(WEEK);
    assert_eq!(rotate(store, b"r-3", b"r-4", late).await, Rotation::Refused, "too old");
    assert_eq!(
        open(store, &account).await,
        std::slice::from_ref(&session),
        "a late one ends nothing"
    );
    let reused = Rotation::Reused { account: account.clone(), session };
    assert_eq!(rotate(store, b"r-1", b"r-4", NOW).await, reused);
    assert!(open(store, &account).await.is_empty());
    for token in [b"r-1", b"r-2", b"r-3", b"r-4"] {
        assert_eq!(rotate(store, token, b"r-5", NOW).await, Rotation::Refused);
    }
}

async fn of_fifty_at_once_one_is_answered_and_the_family_dies(store: &Arc<dyn Store>) {
    let account = someone(&**store).await;
    session(&**store, &account, b"storm", NOW).await;
    let mut storm = tokio::task::JoinSet::new();
    for n in 0..50_u8 {
        let store = Arc::clone(store);
        storm.spawn(async move { rotate(&*store, b"storm", &[b's', n], NOW).await });
    }
    let outcomes = storm.join_all().await;
    let count = |wanted: fn(&Rotation) -> bool| outcomes.iter().filter(|one| wanted(one)).count();
    assert_eq!(count(|one| matches!(one, Rotation::Done { .. })), 1, "{outcomes:?}");
    assert_eq!(count(|one| matches!(one, Rotation::Reused { .. })), 1, "one ends the family");
    assert_eq!(count(|one| *one == Rotation::Refused), 48);
    assert!(open(&**store, &account).await.is_empty());
    for n in 0..50_u8 {
        assert_eq!(rotate(&**store, &[b's', n], b"more", NOW).await, Rotation::Refused);
    }
}

async fn an_account_has_so_many_sessions_and_not_more(store: &dyn Store) {
    let account = someone(store).await;
    let mut all = Vec::new();
    for n in 0..5_u8 {
        let at = NOW.plus(Duration::from_millis(u64::from(n)));
        all.insert(0, session(store, &account, &[b'm', n], at).await);
    }
    all.truncate(3);
    assert_eq!(open(store, &account).await, all, "the newest three");
}

async fn sessions_end_one_by_one(store: &dyn Store) {
    let (account, other) = (someone(store).await, someone(store).await);
    let one = session(store, &account, b"e-1", NOW).await;
    let two = session(store, &account, b"e-2", NOW.plus(Duration::from_millis(1))).await;
    let ended = audit("session_revoked", NOW);
    assert!(!store.revoke_session(&other, &one, &ended).await.unwrap(), "it is somebody else's");
    assert!(store.revoke_session(&account, &one, &ended).await.unwrap());
    assert!(!store.revoke_session(&account, &one, &ended).await.unwrap());
    assert_eq!(open(store, &account).await, std::slice::from_ref(&two));
    // By a token that was used before: who signs out with an old one signs out.
    rotate(store, b"e-2", b"e-3", NOW).await;
    let by = async |token: &[u8]| store.revoke_by_token(&token.to_vec(), &ended).await.unwrap();
    assert_eq!(by(b"unknown").await, None);
    assert_eq!(by(b"e-2").await, Some(two));
    assert_eq!(by(b"e-3").await, None);
    assert!(open(store, &account).await.is_empty());
}

async fn guesses_at_the_same_moment_count_each(store: &Arc<dyn Store>) {
    let counted = |key: &str| Counted { key: key.to_owned(), rule: ACCOUNT };
    let mut guesses = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (store, keys) = (Arc::clone(store), [counted("account:g"), counted("network:g")]);
        // In either order: nobody waits for anybody for ever.
        let keys = if n % 2 == 0 {
            keys
        } else {
            let [a, b] = keys;
            [b, a]
        };
        guesses.spawn(async move { store.attempt(&keys, NOW).await.unwrap().is_ok() });
    }
    let let_in = guesses.join_all().await.into_iter().filter(|let_in| *let_in).count();
    assert_eq!(let_in, ACCOUNT.free as usize);
    let attempt = async |keys: &[Counted], at| store.attempt(keys, at).await.unwrap();
    assert_eq!(attempt(&[counted("account:g")], NOW).await, Err(Duration::from_secs(1)));
    let both = [counted("account:new"), counted("network:g")];
    assert!(attempt(&both, NOW).await.is_err(), "one of them has to wait");
    for _ in 0..ACCOUNT.free {
        assert!(attempt(&[counted("account:new")], NOW).await.is_ok(), "so none was counted");
    }
    store.attempt_was_right("account:g", "network:g").await.unwrap();
    assert!(attempt(&[counted("account:g")], NOW).await.is_ok());
    assert!(attempt(&[counted("network:g")], NOW).await.is_ok(), "one was taken back");
    assert!(attempt(&[counted("network:g")], NOW).await.is_err());
}

async fn tickets_are_good_once(store: &Arc<dyn Store>) {
    let account = someone(&**store).await;
    let put = async |ticket: &[u8], purpose| {
        let end = NOW.plus(Duration::from_secs(60));
        store.put_ticket(&ticket.to_vec(), &account, purpose, end).await.unwrap();
    };
    let take = async |ticket: &[u8], purpose, at| {
        store.take_ticket(&ticket.to_vec(), purpose, at).await.unwrap()
    };
    put(b"t-1", Purpose::Reset).await;
    assert_eq!(take(b"t-1", Purpose::Verify, NOW).await, None, "of another purpose");
    put(b"t-2", Purpose::Reset).await;
    assert_eq!(take(b"t-1", Purpose::Reset, NOW).await, None, "a later one replaces it");
    let mut taking = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let store = Arc::clone(store);
        taking.spawn(async move {
            store.take_ticket(&b"t-2".to_vec(), Purpose::Reset, NOW).await.unwrap()
        });
    }
    let taken: Vec<_> = taking.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken, std::slice::from_ref(&account));
    put(b"t-3", Purpose::Verify).await;
    assert_eq!(take(b"t-3", Purpose::Verify, NOW.plus(Duration::from_secs(60))).await, None);
}

async fn keys_of_backends_are_so_many_and_found_while_they_are_good(store: &Arc<dyn Store>) {
    let (account, other) = (someone(&**store).await, someone(&**store).await);
    let key = |n: u8, account: &str| ApiKey {
        id: id(),
        account: account.to_owned(),
        label: "l".to_owned(),
        publish: vec![Pattern::parse("a:*").unwrap(), Pattern::parse("b:c").unwrap()],
        subscribe: Vec::new(),
        created_at: NOW.plus(Duration::from_millis(n.into())),
        expires_at: NOW.plus(WEEK),
        used_at: None,
    };
    let mut adding = tokio::task::JoinSet::new();
    for n in 0..10_u8 {
        let (store, key) = (Arc::clone(store), key(n, &account));
        adding.spawn(async move {
            let audit = audit("api_key_made", NOW);
            store.add_api_key(&key, &vec![b'k', n], 3, &audit).await.unwrap().then_some((n, key))
        });
    }
    let mut added: Vec<_> = adding.join_all().await.into_iter().flatten().collect();
    added.sort_by_key(|(n, _)| std::cmp::Reverse(*n));
    assert_eq!(added.len(), 3, "of many at once as many as there is room for");
    let keys: Vec<_> = added.iter().map(|(_, key)| key.clone()).collect();
    assert_eq!(store.api_keys(&account, NOW).await.unwrap(), keys);
    assert!(store.api_keys(&other, NOW).await.unwrap().is_empty());
    let (n, first) = &added[0];
    let find = async |at| store.use_api_key(&vec![b'k', *n], at).await.unwrap();
    assert_eq!(find(NOW).await, Some(ApiKey { used_at: Some(NOW), ..first.clone() }));
    assert_eq!(find(NOW.plus(WEEK)).await, None, "it has expired");
    let revoked = audit("api_key_revoked", NOW);
    assert!(!store.revoke_api_key(&other, &first.id, &revoked).await.unwrap());
    assert!(store.revoke_api_key(&account, &first.id, &revoked).await.unwrap());
    assert!(!store.revoke_api_key(&account, &first.id, &revoked).await.unwrap());
    assert_eq!(find(NOW).await, None);
    assert_eq!(store.api_keys(&account, NOW).await.unwrap().len(), 2);
}

async fn a_generation_of_keys_is_taken_once(store: &Arc<dyn Store>) {
    let key = |generation, name: &str| StoredKey {
        generation,
        id: name.to_owned(),
        algorithm: "RS256".to_owned(),
        sealed: sealed("a", name.as_bytes()),
        dates: Dates { made_at: NOW, signs_from: NOW.plus(Duration::from_secs(1)) },
    };
    let mut adding = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, key) = (Arc::clone(store), key(1, &format!("k-{n}")));
        adding.spawn(async move {
            store.add_signing_key(&key, &audit("signing_key_made", NOW)).await.unwrap()
        });
    }
    assert_eq!(adding.join_all().await.into_iter().filter(|added| *added).count(), 1);
    let second = key(2, "second");
    assert!(store.add_signing_key(&second, &audit("signing_key_made", NOW)).await.unwrap());
    let found = store.signing_keys().await.unwrap();
    assert_eq!((found.len(), &found[1]), (2, &second));
    store.reseal_signing_key(2, &sealed("b", b"anew")).await.unwrap();
    assert_eq!(store.signing_keys().await.unwrap()[1].sealed, sealed("b", b"anew"));
}

async fn what_is_sealed_elsewhere_is_found_and_replaced(store: &dyn Store) {
    let new = account(None, Some(b"seal@"));
    store.create_account(&new, &audit("registered", NOW)).await.unwrap();
    let all = store.sealed_elsewhere("b", 100).await.unwrap();
    let old = sealed("a", b"seal@-sealed");
    assert!(all.contains(&(new.id.clone(), old.clone())));
    assert_eq!(store.sealed_elsewhere("b", 1).await.unwrap().len(), 1);
    let fresh = sealed("b", b"fresh");
    store.reseal(&new.id, &sealed("a", b"other"), &fresh).await.unwrap();
    assert_eq!(store.account(&new.id).await.unwrap().unwrap().email, Some(old.clone()));
    store.reseal(&new.id, &old, &fresh).await.unwrap();
    assert_eq!(store.account(&new.id).await.unwrap().unwrap().email, Some(fresh));
}

async fn what_has_ended_is_removed(store: &dyn Store) {
    let account = someone(store).await;
    session(store, &account, b"x-1", NOW).await;
    rotate(store, b"x-1", b"x-2", NOW).await;
    store.prune(NOW, 0).await.unwrap();
    assert_eq!(open(store, &account).await.len(), 1, "nothing of it has ended");
    assert!(matches!(rotate(store, b"x-1", b"x-3", NOW).await, Rotation::Reused { .. }));
    store.prune(NOW.plus(WEEK), 2).await.unwrap();
    assert_eq!(rotate(store, b"x-2", b"x-3", NOW).await, Rotation::Refused, "it is not known");
    let keys = store.signing_keys().await.unwrap();
    assert_eq!(keys.iter().map(|key| key.generation).collect::<Vec<_>>(), [2]);
    store.audit(&audit("still_there", NOW)).await.unwrap();
}
