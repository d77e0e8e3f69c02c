//! Schedules at exact moments, each by its name, with what it proves.

mod owners;
mod producers;
mod rules;
