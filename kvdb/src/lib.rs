//! isthmus-kvdb
