mod arbitrary;
mod refusals;
mod round_trips;
