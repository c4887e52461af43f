// All of it is in the header; a target needs a file.
#include "CProcessor.h"
