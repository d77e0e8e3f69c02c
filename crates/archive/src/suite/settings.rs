//! What operators set, and what they did.

use super::Subject;
use crate::OperatorLine;
use stormwire_core::Timestamp;

fn line(what: &str, target: &str) -> OperatorLine {
    OperatorLine {
        at: Timestamp(1_795_250_000_000),
        by: "root".to_owned(),
        ip: "192.0.2.1".to_owned(),
        what: what.to_owned(),
        target: target.to_owned(),
        detail: "{\"n\":1}".to_owned(),
    }
}

/// Documents are written, replaced and removed, each time with a line of the audit.
pub async fn a_setting_is_written_with_its_line_and_only_over_what_was_seen(subject: &Subject) {
    let settings = &*subject.settings;
    let all = async || {
        let all = settings.settings().await.expect("they are read");
        all.into_iter().map(|one| (one.kind, one.name, one.body)).collect::<Vec<_>>()
    };
    assert_eq!(settings.newest_line().await, Ok(0));
    assert!(all().await.is_empty());
    let set = async |name: &str, body, expected| {
        let line = line("namespace_set", name);
        settings.set("namespace", name, body, expected, &line).await.expect("it is answered")
    };
    let first = set("chat", Some("{}"), Some(0)).await.expect("it was not there");
    assert_eq!(settings.newest_line().await, Ok(first));
    assert_eq!(set("chat", Some("[]"), Some(0)).await, None, "it is there");
    assert_eq!(settings.newest_line().await, Ok(first), "a refused change leaves no line");
    let second = set("chat", Some("{\"a\":1}"), Some(first)).await.expect("as it was seen");
    assert!(second > first);
    assert_eq!(set("chat", None, Some(first)).await, None, "somebody else has written");
    let third = set("alerts", Some("{}"), None).await.expect("whatever is there");
    let entry = |name: &str, body: &str| ("namespace".to_owned(), name.to_owned(), body.to_owned());
    assert_eq!(all().await, [entry("alerts", "{}"), entry("chat", "{\"a\":1}")]);
    let removed = set("chat", None, Some(second)).await.expect("it is removed");
    assert_eq!(all().await, [entry("alerts", "{}")]);
    assert_eq!(set("chat", None, Some(second)).await, None, "it is gone");
    let noted = settings.note(&line("connection_closed", "gw:1")).await.expect("it is noted");
    let numbers = [first, second, third, removed, noted];
    assert!(numbers.is_sorted());
    let page = settings.lines(None, 2).await.expect("lines");
    assert_eq!(page.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [noted, removed]);
    assert_eq!(page[0].1, line("connection_closed", "gw:1"));
    let page = settings.lines(Some(removed), 10).await.expect("older lines");
    assert_eq!(page.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [third, second, first]);
}

/// Of many who change what they have seen at the same moment one does.
pub async fn of_many_who_change_one_setting_one_does(subject: &Subject) {
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let settings = std::sync::Arc::clone(&subject.settings);
            tokio::spawn(async move {
                let body = format!("{n}");
                let line = line("namespace_set", "chat");
                settings.set("namespace", "chat", Some(&body), Some(0), &line).await
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += usize::from(task.await.expect("no panic").expect("it is answered").is_some());
    }
    assert_eq!(done, 1);
    assert_eq!(subject.settings.settings().await.expect("they are read").len(), 1);
    assert_eq!(subject.settings.lines(None, 10).await.expect("lines").len(), 1);
}
