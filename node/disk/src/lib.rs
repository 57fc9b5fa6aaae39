//! isthmus-disk
