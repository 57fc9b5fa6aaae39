//! isthmus-nbd
