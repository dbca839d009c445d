//! The file sink: whole lines into files, in order, and repeated by no restart.

pub mod params;
