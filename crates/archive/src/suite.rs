//! The conformance suite of the port [`Archive`](crate::Archive): what every engine must pass. For
//! tests only.
//!
//! An engine's test file says `stormwire_archive::archive_suite!(fresh);` with
//! `async fn fresh() -> Option<Subject>`, which makes an empty archive; `None` skips the test (the
//! server is not on this machine). The macro makes one test of each property.

mod channels;
mod history;
mod kit;
mod latest;
mod leases;
mod losses;
mod persist;
mod positions;
mod prefix;
mod prefix_speed;
mod retention;
mod settings;

pub use channels::{
    a_channel_is_known_from_its_first_event, channels_are_paged_by_name,
    counts_grow_with_every_batch,
};
pub use history::{
    a_page_and_its_ledger_are_one_snapshot, a_page_is_bounded_by_bytes, epochs_follow_each_other,
    history_goes_both_ways, the_history_of_nothing_is_empty, time_finds_its_position,
};
pub use latest::{each_keys_newest_event_is_paged, the_newest_event_of_a_key_is_found};
pub use leases::{
    a_lease_expires_and_its_holder_can_no_longer_commit, a_released_lease_is_free_at_once,
    free_partitions_are_counted, living_workers_are_counted, partitions_have_one_holder_each,
};
pub use losses::{
    a_dead_letter_can_be_listed_read_and_dropped, a_frame_that_cannot_be_decoded_is_a_dead_letter,
    a_proved_hole_is_told_in_the_pages_that_cover_it, an_odd_event_never_holds_up_its_batch,
};
pub use persist::{
    a_batch_ahead_of_the_ledger_is_refused, a_batch_is_stored_and_the_ledger_moves,
    a_batch_is_stored_once_however_often_it_is_persisted, a_large_batch_is_stored_whole,
    an_archive_that_is_there_answers, data_comes_back_as_it_was,
    frames_without_events_move_the_ledger, partitions_are_persisted_side_by_side,
};
pub use positions::{
    a_read_position_goes_back_only_by_force, events_behind_a_position_are_counted_up_to_a_bound,
    ledgers_and_what_is_missing_are_told_by_partition,
};
pub use prefix::{
    a_prefix_is_paged_in_the_partitions_order,
    a_prefix_of_many_channels_is_paged_in_the_partitions_order,
    a_prefix_page_is_bounded_and_tells_gaps, time_finds_a_place_for_a_prefix,
};
pub use prefix_speed::{PrefixSpeed, prefix_speed};
pub use retention::{
    only_who_maintains_removes, the_oldest_go_while_a_namespace_takes_too_many_bytes,
    what_is_past_its_age_goes_and_is_told_as_a_gap,
};
pub use settings::{
    a_setting_is_written_with_its_line_and_only_over_what_was_seen,
    of_many_who_change_one_setting_one_does,
};

use crate::{Archive, Settings};
use std::any::Any;
use std::sync::Arc;

/// A fresh archive under test.
pub struct Subject {
    /// The archive, migrated.
    pub archive: Arc<dyn Archive>,
    /// What operators set, in the same database.
    pub settings: Arc<dyn Settings>,
    /// What must live as long: a folder, a server.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes one test of each property of the suite, each on what `$fresh` makes.
#[macro_export]
macro_rules! archive_suite {
    ($fresh:path) => {
        $crate::archive_suite! { @tests $fresh;
            an_archive_that_is_there_answers
            a_batch_is_stored_and_the_ledger_moves
            a_batch_is_stored_once_however_often_it_is_persisted
            a_batch_ahead_of_the_ledger_is_refused
            a_large_batch_is_stored_whole
            data_comes_back_as_it_was
            frames_without_events_move_the_ledger
            partitions_are_persisted_side_by_side
            partitions_have_one_holder_each
            a_released_lease_is_free_at_once
            a_lease_expires_and_its_holder_can_no_longer_commit
            free_partitions_are_counted
            living_workers_are_counted
            history_goes_both_ways
            a_page_is_bounded_by_bytes
            a_page_and_its_ledger_are_one_snapshot
            epochs_follow_each_other
            the_history_of_nothing_is_empty
            time_finds_its_position
            the_newest_event_of_a_key_is_found
            each_keys_newest_event_is_paged
            a_prefix_is_paged_in_the_partitions_order
            a_prefix_of_many_channels_is_paged_in_the_partitions_order
            a_prefix_page_is_bounded_and_tells_gaps
            time_finds_a_place_for_a_prefix
            a_frame_that_cannot_be_decoded_is_a_dead_letter
            a_dead_letter_can_be_listed_read_and_dropped
            a_proved_hole_is_told_in_the_pages_that_cover_it
            an_odd_event_never_holds_up_its_batch
            a_channel_is_known_from_its_first_event
            counts_grow_with_every_batch
            channels_are_paged_by_name
            a_read_position_goes_back_only_by_force
            events_behind_a_position_are_counted_up_to_a_bound
            ledgers_and_what_is_missing_are_told_by_partition
            what_is_past_its_age_goes_and_is_told_as_a_gap
            the_oldest_go_while_a_namespace_takes_too_many_bytes
            only_who_maintains_removes
            a_setting_is_written_with_its_line_and_only_over_what_was_seen
            of_many_who_change_one_setting_one_does
        }
    };
    (@tests $fresh:path; $($property:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $property() {
            if let Some(subject) = $fresh().await {
                $crate::suite::$property(&subject).await;
            }
        }
    )+};
}
