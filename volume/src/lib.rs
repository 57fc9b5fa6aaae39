//! isthmus-volume
