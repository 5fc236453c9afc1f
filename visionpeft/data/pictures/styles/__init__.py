"""Styles: functions that redraw every picture of a data set, so that two styles of one content can be compared."""
