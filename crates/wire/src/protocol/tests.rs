use super::*;
use crate::frame::EventsBuilder;

fn requests(text: &str) -> Vec<Result<Request<'_>, Rejected>> {
    let mut events = EventsBuilder::default();
    json::Requests::new(text, MessageLimits::default(), &mut events).collect()
}

#[test]
fn a_publish_is_packed_with_its_bytes_as_they_came_in() {
    let text = r#"[{"op":"publish","id":3,"channel":"x:a","seq":1,"events":[{"type":"flight","data":{"n" : 1.0}},{"data":[2]}]}]"#;
    let read = requests(text);
    let [Ok(Request { id: Some(RequestId::Number(3)), op: Operation::Publish(publish) })] =
        &read[..]
    else {
        panic!("{read:?}")
    };
    let data: Vec<_> = publish.events.iter().map(|event| event.data).collect();
    assert_eq!(data, [&b"{\"n\" : 1.0}"[..], b"[2]"]);
}
