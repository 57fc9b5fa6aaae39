//! isthmus-simulated-disk
