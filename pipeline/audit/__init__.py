"""People check the judge: draw rows blind, grade them on a local page or a spreadsheet, measure agreement."""
